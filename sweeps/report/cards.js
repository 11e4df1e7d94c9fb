// Cards, one at a time: chosen from a list, by links to #trial-3, and by a click on a point.

const shelf = document.querySelector(".cards");

function element(name, content, attributes = {}) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...[content].flat());
  return made;
}

function layer(name, [before, after], widest) {
  const fill = element("i", "", { style: `width:${100 * after / before}%` });
  const bar = element("span", fill, { class: "bar", style: `width:${100 * before / widest}%` });
  return element("li", [element("span", name, { title: name }), bar, element("span", `${before} → ${after}`)]);
}

function show(anchor) {
  const card = cards.cards[anchor];
  const parts = [element("h3", [element("span", "", { class: "swatch", style: `background:${card.colour}` }), card.title])];
  const state = [card.state];
  if (card.link) state.push(" · ", element("a", "save its network", { href: card.link, download: "" }));
  if (card.run) state.push(" · ", element("a", "its run on W&B", { href: card.run }));
  parts.push(element("p", state));
  parts.push(element("dl", card.facts.map(([name, fact]) =>
    element("div", [element("dt", name), element("dd", fact)]))));
  if (card.widths.length) {
    const widest = Math.max(...card.widths.map(([before]) => before));
    const rows = cards.names[card.names].map((name, index) => layer(name, card.widths[index], widest));
    parts.push(element("h3", "Output channels of each layer, before and after"));
    parts.push(element("ul", rows, { class: "layers" }));
  }
  const place = shelf.querySelector("article");
  place.id = anchor;
  place.style.setProperty("--colour", card.colour);
  place.replaceChildren(...parts);
  shelf.querySelector("select").value = anchor;
}

function showLinked() {
  const anchor = location.hash.slice(1);
  if (!cards.cards[anchor]) return;
  show(anchor);
  shelf.querySelector("article").scrollIntoView();
}

if (shelf) {
  const list = shelf.querySelector("select");
  list.addEventListener("change", () => show(list.value));
  for (const button of shelf.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => {
      const option = list.options[list.selectedIndex + Number(button.dataset.step)];
      if (option) show(option.value);
    });
  }
  show(list.value);
  addEventListener("hashchange", showLinked);
  showLinked();
}

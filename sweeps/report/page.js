const { drawings, trials, cards } = JSON.parse(document.getElementById("drawings").textContent);
const coarse = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page

// A copy of a part of a drawing, with what depends on the reader's choices and what is said of trials filled in.
function filled(part, chosen) {
  if (part === null || typeof part !== "object") return part;
  if (Array.isArray(part)) return part.map((item) => filled(item, chosen)).filter((item) => item !== undefined);
  if (part.options) return filled(part.options[chosen[part.choice]], chosen);
  if (part.trials) return part.trials.map((number) => trials[number]);
  return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, filled(value, chosen)]));
}

function draw(figure) {
  const chosen = Array.from(figure.querySelectorAll(".choice input:checked"), (input) => input.value);
  const hidden = new Set(Array.from(figure.querySelectorAll(".legend input:not(:checked)"), (input) => input.value));
  for (const plot of figure.querySelectorAll(".plot")) {
    const { data, layout, labels } = filled(drawings[plot.dataset.plot], chosen);
    for (const trace of data) trace.visible = !hidden.has(trace.legendgroup);
    const options = { displayModeBar: false, responsive: true };
    plot.labels = labels.filter((one) => !hidden.has(one.group));
    plot.labelled = undefined;
    Plotly.react(plot, data, { ...layout, dragmode: coarse ? false : "zoom" }, options);
    if (!plot.heard) listen(plot);
    drawnAnew(plot);
  }
}

function listen(plot) {
  plot.heard = true;
  plot.on("plotly_afterplot", () => drawnAnew(plot));
  plot.on("plotly_click", ({ points }) => {
    const trial = points.map((point) => point.id ?? point.data.meta ?? point.customdata)
      .find((id) => String(id).startsWith("trial-"));
    if (trial) location.hash = trial;
  });
}

function drawnAnew(plot) {
  scalable(plot);
  label(plot, plot.labels);
}

// A drawing has the size in pixels of its place on the screen; a view box lets it shrink to its place on paper.
function scalable(plot) {
  for (const svg of plot.querySelectorAll(".main-svg")) {
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  }
}

// Figures are drawn when they come near the screen, or onto paper.
const waiting = new Set(document.querySelectorAll("figure.drawing"));
const near = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) if (isIntersecting) drawFirst(target);
}, { rootMargin: "300px" });

function drawFirst(figure) {
  if (!waiting.delete(figure)) return;
  near.unobserve(figure);
  figure.addEventListener("change", () => draw(figure));
  draw(figure);
}

for (const figure of waiting) near.observe(figure);
addEventListener("beforeprint", () => [...waiting].forEach(drawFirst));

"use strict";

const { drawings, trials } = JSON.parse(document.getElementById("drawings").textContent);
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
    const { data, layout } = filled(drawings[plot.dataset.plot], chosen);
    for (const trace of data) trace.visible = !hidden.has(trace.legendgroup);
    const options = { displayModeBar: false, responsive: true };
    Plotly.react(plot, data, { ...layout, dragmode: coarse ? false : "zoom" }, options);
  }
}

// A drawing has the size in pixels of its place on the screen; a view box lets it shrink to its place on paper.
function scalable(plot) {
  for (const svg of plot.querySelectorAll(".main-svg")) {
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  }
}

for (const figure of document.querySelectorAll("figure.drawing")) {
  figure.addEventListener("change", () => draw(figure));
  draw(figure);
  for (const plot of figure.querySelectorAll(".plot")) {
    scalable(plot);
    plot.on("plotly_afterplot", () => scalable(plot));
  }
}

// Empty cells come last, whichever way the rest is turned.
function compare(a, b, turn) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
  const [x, y] = [Number(a), Number(b)];
  if (Number.isNaN(x) || Number.isNaN(y)) return turn * a.localeCompare(b);
  return turn * (x - y);
}

function sortKey(cell) {
  const said = cell.textContent.replaceAll(",", "");
  return cell.dataset.value ?? (said === "–" ? undefined : said);
}

function sort(head) {
  const descending = head.ariaSort === "ascending";
  for (const other of head.parentNode.cells) other.ariaSort = "none";
  head.ariaSort = descending ? "descending" : "ascending";
  const body = head.closest("table").querySelector("[data-sortable]");
  const value = (row) => sortKey(row.cells[head.cellIndex]);
  body.append(...Array.from(body.rows).sort((a, b) => compare(value(a), value(b), descending ? -1 : 1)));
}

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sort(button.parentNode));
}

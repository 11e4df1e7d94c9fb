// Tables: sorted by a click on a heading; those wider than the screen are marked where they go on.

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

function mark(scroller) {
  const hidden = scroller.scrollWidth - scroller.clientWidth;
  scroller.classList.toggle("wide", hidden > 1);
  scroller.classList.toggle("more", hidden - scroller.scrollLeft > 1);
}

const resized = new ResizeObserver((seen) => seen.forEach(({ target }) => mark(target)));
for (const scroller of document.querySelectorAll(".scroller")) {
  scroller.addEventListener("scroll", () => mark(scroller), { passive: true });
  resized.observe(scroller);
}

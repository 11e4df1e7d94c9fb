// Figures as SVG and PNG, tables as CSV, named after the study and the part of the page.

function nameOf(figure, ending) {
  const part = figure.id.replace("figure-", "") || figure.closest("section").id;
  const twins = figure.closest("section").querySelectorAll("figure:not(.drawing)");
  const number = figure.id || twins.length < 2 ? "" : `-${Array.from(twins).indexOf(figure) + 1}`;
  return `${document.querySelector("h1").textContent}-${part}${number}.${ending}`.replaceAll(/[^\w.-]+/g, "-");
}

function save(address, name) {
  const link = document.createElement("a");
  [link.href, link.download] = [address, name];
  link.click();
}

// Drawings have no background, for the page has one; on their own they are dark on white.
async function picture(plot, format) {
  const layout = { ...plot.layout, paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff" };
  const size = { width: plot.clientWidth, height: plot.clientHeight, scale: format === "png" ? 2 : 1 };
  return Plotly.toImage({ data: plot.data, layout }, { format, ...size });
}

function csv(table) {
  const quoted = (text) => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const groups = Array.from(table.querySelectorAll(".groups > *"), (cell) =>
    Array(cell.colSpan).fill(cell.textContent)).flat();
  const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells, (cell, column) =>
    [groups[column], cell.textContent].filter(Boolean).join(", "));
  const value = (cell) => cell.tagName === "TH" ? cell.textContent.replace("●", "") : sortKey(cell) ?? "";
  const rows = Array.from(table.querySelectorAll("tbody tr"), (row) => Array.from(row.cells, value));
  return [heads, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

for (const button of document.querySelectorAll(".save button")) {
  button.addEventListener("click", async () => {
    const [figure, format] = [button.closest("figure"), button.dataset.format];
    if (format === "csv") {
      const file = new Blob([csv(figure.querySelector("table"))], { type: "text/csv" });
      const address = URL.createObjectURL(file);
      save(address, nameOf(figure, format));
      URL.revokeObjectURL(address);
      return;
    }
    const plots = figure.querySelectorAll(".plot");
    for (const [number, plot] of plots.entries()) {
      const name = nameOf(figure, format);
      const own = plots.length > 1 ? name.replace(`.${format}`, `-${number + 1}.${format}`) : name;
      save(await picture(plot, format), own);
    }
  });
}

// Where labels go: beside their points, where they touch no line, no point and no other label.

const GAP = 4; // between a label and what it stands beside
const DISTANCES = [0, 12, 24, 38, 54]; // further away; from the second on with a line to the point
const SIDES = { above: [0, -1], below: [0, 1] }; // of labels that have their place outside of what is drawn
const DIRECTIONS = [[-1, 0], [1, 0], [0, -1], [0, 1], [-1, -1], [1, -1], [-1, 1], [1, 1]];
const pen = document.createElement("canvas").getContext("2d");

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

function box(x, y, width, height) {
  return { left: x - width / 2, right: x + width / 2, top: y - height / 2, bottom: y + height / 2 };
}

// Boxes of all that is drawn, in pixels from the drawing's corner; of lines, a small one every few pixels.
function drawn(plot) {
  const corner = plot.getBoundingClientRect();
  const placed = (found) => ({
    left: found.left - corner.left, right: found.right - corner.left,
    top: found.top - corner.top, bottom: found.bottom - corner.top,
  });
  const points = Array.from(plot.querySelectorAll(".scatterlayer .point"), (p) => placed(p.getBoundingClientRect()));
  const bits = [];
  for (const path of plot.querySelectorAll(".js-line, .errorbar path, .shapelayer path")) {
    const [matrix, length] = [path.getScreenCTM(), path.getTotalLength()];
    for (let at = 0; matrix && at <= length; at += 4) {
      const spot = path.getPointAtLength(at).matrixTransform(matrix);
      bits.push(box(spot.x - corner.left, spot.y - corner.top, 3, 3));
    }
  }
  return [...points, ...bits];
}

// The places for a label from the best to the worst, as middles.
function* places(label, spot, size, area) {
  const [width, height] = size;
  if (label.along) {
    for (let x = area.right - width / 2; x > area.left + width / 2; x -= 8) {
      for (const side of [-1, 1]) yield { x, y: spot.y + side * (height / 2 + 1), far: false };
    }
    return;
  }
  if (label.side) {
    const [, dy] = SIDES[label.side];
    yield { x: spot.x, y: spot.y + dy * (GAP + 2 + height / 2), far: false };
    return;
  }
  for (const distance of DISTANCES) {
    for (const [dx, dy] of DIRECTIONS) {
      const away = spot.radius + GAP + (dx && dy ? 0.7 * distance - GAP : distance);
      yield { x: spot.x + dx * (away + width / 2), y: spot.y + dy * (away + height / 2), far: distance > 0 };
    }
  }
}

function inside(a, area) {
  return a.left >= area.left && a.right <= area.right && a.top >= area.top && a.bottom <= area.bottom;
}

// Bits of the straight line from a place to its point, up to the point's rim.
function leader(place, spot) {
  const length = Math.hypot(place.x - spot.x, place.y - spot.y);
  const bits = [];
  for (let at = spot.radius + 1; at < length; at += 4) {
    bits.push(box(spot.x + (place.x - spot.x) * at / length, spot.y + (place.y - spot.y) * at / length, 2, 2));
  }
  return bits;
}

// Annotations for the labels that find a place, as plotly has them, in fractions of the plotting area.
function annotations(plot, labels) {
  const { xaxis, yaxis, font } = plot._fullLayout;
  const full = { left: 0, right: plot.clientWidth, top: 0, bottom: yaxis._offset + yaxis._length };
  const area = { ...full, left: xaxis._offset - 2, right: Math.min(full.right, xaxis._offset + xaxis._length + 22) };
  pen.font = `${font.size}px ${font.family}`;
  const obstacles = labels.some((one) => !one.side) ? drawn(plot) : [];
  const taken = [];
  const found = [];
  for (const label of labels) {
    if (label.y === null || label.x === null) continue;
    const spot = {
      x: label.along ? area.right : xaxis._offset + xaxis.d2p(label.x),
      y: yaxis._offset + yaxis.d2p(label.y), radius: 6,
    };
    if (!inside(box(spot.x, spot.y, 0, 0), { ...area, left: area.left - 1, right: area.right + 1 })) continue;
    const size = [pen.measureText(label.text).width + 5, 1.5 * font.size];
    const rim = label.along ? area : { ...area, right: full.right };
    const free = (place) => {
      const own = box(place.x, place.y, ...size);
      const line = place.far ? leader(place, spot) : [];
      const clear = label.side || (inside(own, rim) && !obstacles.some((other) => overlap(own, other)));
      return clear &&
        !taken.some((other) => overlap(own, other) || line.some((bit) => overlap(bit, other)));
    };
    const place = Array.from(places(label, spot, size, area)).find(free);
    if (!place) continue;
    taken.push(box(place.x, place.y, ...size), ...(place.far ? leader(place, spot) : []));
    found.push(annotation(label, place, spot, xaxis, yaxis));
  }
  return found;
}

function annotation(label, place, spot, xaxis, yaxis) {
  const near = place.far ? spot : place;
  const common = {
    text: label.text, xref: "paper", yref: "paper", borderpad: 0,
    x: (near.x - xaxis._offset) / xaxis._length, y: 1 - (near.y - yaxis._offset) / yaxis._length,
  };
  const middle = { xanchor: "center", yanchor: "middle" };
  if (!place.far) return { ...common, ...middle, showarrow: false };
  const line = { showarrow: true, arrowhead: 0, arrowwidth: 1, arrowcolor: "#7b828c", standoff: spot.radius };
  return { ...common, ...middle, ...line, ax: place.x - spot.x, ay: place.y - spot.y };
}

// Place the labels of a drawing anew, if what is drawn has moved.
function label(plot, labels) {
  const wanted = annotations(plot, labels);
  const said = JSON.stringify(wanted.map((one) => [one.text, one.x, one.y, one.ax, one.ay].map((v) => +v ? (+v).toFixed(2) : v)));
  if (plot.labelled === said) return;
  plot.labelled = said;
  Plotly.relayout(plot, { annotations: wanted });
}

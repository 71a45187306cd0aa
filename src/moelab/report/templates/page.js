// Draws every chart at the width of its card, and again when the width changes. Nothing is fetched.
const specs = JSON.parse(document.getElementById("charts").textContent);
const options = { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } };

// A copy of the specification with each panel `width` pixels wide, in `columns` columns, labels cut to fit.
function sized(spec, width, columns, narrow) {
  const copy = structuredClone(spec);
  const visit = (node) => {
    if (typeof node.width === "number") node.width = width;
    for (const key of ["concat", "vconcat", "hconcat", "layer"]) (node[key] || []).forEach(visit);
  };
  visit(copy);
  if (narrow) wrapLabels(copy);
  if (copy.concat) copy.columns = columns;
  if (narrow) {
    copy.config.axisY = { ...copy.config.axisY, labelFontSize: 11 };
    copy.config.axisX = { ...copy.config.axisX, labelFontSize: 11 };
  }
  return copy;
}

// On a narrow screen the names of rows break into short lines instead of squeezing the plot.
function wrapLabels(node) {
  const y = node.encoding && node.encoding.y;
  if (y && Array.isArray(y.sort) && y.axis) {
    const lines = Object.fromEntries(y.sort.map((name) => [name, wrapped(name, 15)]));
    y.axis.labelExpr = JSON.stringify(lines) + "[datum.label]";
  }
  for (const key of ["concat", "vconcat", "hconcat", "layer"]) (node[key] || []).forEach(wrapLabels);
}

function wrapped(text, length) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const last = lines[lines.length - 1];
    if (last && (last + " " + word).length > length) lines.push(word);
    else lines[lines.length - 1] = last ? last + " " + word : word;
  }
  return lines;
}

function panelWidth(node) {
  if (typeof node.width === "number") return node.width;
  for (const key of ["concat", "vconcat", "hconcat", "layer"])
    for (const child of node[key] || []) { const found = panelWidth(child); if (found) return found; }
  return 0;
}

async function draw(place, spec) {
  const room = place.clientWidth - 2;
  const narrow = room < 560;
  const columns = narrow ? 1 : spec.columns || 1;
  let width = panelWidth(spec);
  for (let attempt = 0; attempt < 3; attempt++) {
    const result = await vegaEmbed(place, sized(spec, width, columns, narrow), options);
    const drawn = place.querySelector("svg").getBBox ? parseFloat(place.querySelector("svg").getAttribute("width")) : room;
    const better = Math.min(Math.floor(width + (room - drawn) / columns), 1.35 * panelWidth(spec) * (narrow ? 4 : 1));
    if (Math.abs(better - width) < 3 || better < 90) break;
    result.finalize();
    width = better;
  }
}

for (const place of document.querySelectorAll(".chart")) {
  const spec = specs[Number(place.dataset.chart)];
  let last = 0, timer = 0;
  const redraw = () => {
    const width = place.clientWidth;
    if (!width || Math.abs(width - last) < 2) return;
    last = width;
    draw(place, spec).catch((error) => console.error(error));
  };
  new ResizeObserver(() => { clearTimeout(timer); timer = setTimeout(redraw, last ? 150 : 0); }).observe(place);
}

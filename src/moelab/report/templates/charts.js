// Draws charts at the width of their cards and in the page's colours, again when either changes. Nothing is fetched.
// Above MANY_MARKS rows a chart is painted, not built of elements, which would take seconds; FEW_MARKS decide its size.
const MANY_MARKS = 1500, FEW_MARKS = 60;
const embedding = (spec) => ({ renderer: rowsOf(spec) > MANY_MARKS ? "canvas" : "svg", actions: false });
const DATA = ["values", "datasets"]; // keys of rows, inline or by name
const night = matchMedia("(prefers-color-scheme: dark)");
const printing = matchMedia("print");

// The specification with every colour of the light theme exchanged for its counterpart in the dark one.
function recoloured(node) {
  if (typeof node === "string") return darkColors[node] || node;
  if (Array.isArray(node)) return node.map(recoloured);
  if (node && typeof node === "object")
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, DATA.includes(key) ? value : recoloured(value)]));
  return node;
}

// A copy of the specification with each panel `width` pixels wide, in `columns` columns, labels cut to fit.
function sized(spec, width, columns, narrow, room) {
  const copy = structuredClone(spec);
  const visit = (node) => {
    if (typeof node.width === "number") node.width = width;
    for (const key of ["concat", "vconcat", "hconcat", "layer"]) (node[key] || []).forEach(visit);
  };
  visit(copy);
  if (narrow) { wrapLabels(copy); wrapTitles(copy, room); }
  if (copy.concat) copy.columns = columns;
  if (narrow) {
    copy.config.axisY = { ...copy.config.axisY, labelFontSize: 11 };
    copy.config.axisX = { ...copy.config.axisX, labelFontSize: 11, labelSeparation: 8 };
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

// On a narrow screen titles break into lines and legends into rows: a long one would set the width of the figure.
function wrapTitles(node, room) {
  const lines = (text, size) => [text].flat().flatMap((line) => wrapped(line, Math.floor(room / (0.58 * size))));
  if (typeof node.title === "string") node.title = lines(node.title, 14);
  else if (node.title && node.title.text) {
    node.title.text = lines(node.title.text, node.title.fontSize || 14);
    if (node.title.subtitle) node.title.subtitle = lines(node.title.subtitle, 12);
  }
  for (const channel of Object.values(node.encoding || {}))
    if (channel && channel.legend) channel.legend.columns = Math.max(1, Math.floor(room / 150));
  partsOf(node).forEach((part) => wrapTitles(part, room));
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

// The rows of every part of a specification, given inline or by the name of a data set of the whole.
function rowSets(node, named = node.datasets || {}) {
  if (!node || typeof node !== "object") return [];
  const rows = node.data && (node.data.values || named[node.data.name]);
  return [...(Array.isArray(rows) ? [rows] : []), ...partsOf(node).flatMap((part) => rowSets(part, named))];
}

function partsOf(node) {
  return ["concat", "vconcat", "hconcat", "layer"].flatMap((key) => node[key] || []);
}

function rowsOf(spec) {
  return rowSets(spec).reduce((sum, rows) => sum + rows.length, 0);
}

// The specification with few of its rows: scales are given, so axes and legends, and with them the size, stay.
function thinned(node) {
  if (Array.isArray(node)) return node.map(thinned);
  if (!node || typeof node !== "object") return node;
  const few = (rows) => rows.filter((_, at) => at % Math.ceil(rows.length / FEW_MARKS) === 0);
  const kept = ([key, value]) => {
    if (key === "datasets") return [key, Object.fromEntries(Object.entries(value).map(([name, rows]) => [name, few(rows)]))];
    return [key, key === "data" && Array.isArray(value.values) ? { ...value, values: few(value.values) } : thinned(value)];
  };
  return Object.fromEntries(Object.entries(node).map(kept));
}

// The width of panels that a figure of this kind had at this width of its card: the next one fits at once.
const fitted = new Map();

async function draw(place, spec) {
  const room = place.clientWidth - 2;
  const narrow = room < 560;
  const columns = narrow ? 1 : spec.columns || 1;
  const themed = night.matches && !printing.matches ? recoloured(spec) : spec;
  const trial = rowsOf(spec) > MANY_MARKS ? thinned(themed) : themed;
  if (trial !== themed) place.style.visibility = "hidden"; // few marks are not the figure
  const kind = `${fileName(place)} ${room} ${columns} ${partsOf(spec).length}`;
  let width = fitted.get(kind) || panelWidth(spec), fits = false, result = null;
  for (let attempt = 0; attempt < 3 && !fits; attempt++) {
    if (result) result.finalize();
    result = await vegaEmbed(place, sized(trial, width, columns, narrow, room), embedding(trial));
    const picture = place.querySelector("svg");
    const drawn = picture ? parseFloat(picture.getAttribute("width")) : room;
    const better = Math.min(Math.floor(width + (room - drawn) / columns), 1.35 * panelWidth(spec) * (narrow ? 4 : 1));
    fits = Math.abs(better - width) < 3 || better < 90;
    if (!fits && attempt < 2) width = better;
  }
  fitted.set(kind, width);
  if (trial !== themed) {
    result.finalize();
    await vegaEmbed(place, sized(themed, width, columns, narrow, room), embedding(spec));
    place.style.visibility = "";
  }
}

// Saves the chart as it is drawn for print: in the light colours, at its own width.
async function save(spec, kind, name) {
  const place = document.createElement("div");
  const { view } = await vegaEmbed(place, structuredClone(spec), embedding(spec));
  const link = document.createElement("a");
  link.href = await view.toImageURL(kind, 2);
  link.download = name + "." + kind;
  link.click();
  view.finalize();
}

function fileName(place) {
  const figure = place.closest("figure");
  const section = place.closest("section");
  const title = (section && section.querySelector("h2") ? section.querySelector("h2").textContent : document.title).trim();
  const among = section ? [...section.querySelectorAll("figure")].indexOf(figure) : 0;
  return title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") + (among > 0 ? "-" + (among + 1) : "");
}

function addTools(place, spec) {
  const tools = document.createElement("div");
  tools.className = "tools";
  for (const kind of ["svg", "png"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind.toUpperCase();
    button.setAttribute("aria-label", "Save this figure as " + kind.toUpperCase());
    button.addEventListener("click", () => save(spec, kind, fileName(place)));
    tools.append(button);
  }
  place.closest(".card").before(tools);
}

// Charts that wait for their turn, drawn one at a time: those near the window first, the others while nothing else runs.
const waiting = new Map();
let turn = false;
const idle = window.requestIdleCallback || ((act) => setTimeout(act, 50));
const near = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting) drawNow(target);
}, { rootMargin: "300px" });

function drawNow(place) {
  const start = waiting.get(place);
  waiting.delete(place);
  near.unobserve(place);
  return start && place.isConnected ? start() : null;
}

function drawRest() {
  if (turn || !waiting.size) return;
  turn = true;
  idle(async () => {
    const [place] = waiting.keys();
    if (place) await drawNow(place);
    turn = false;
    drawRest();
  });
}

// Draws `specs` into the places below `root` whose data-chart names them.
function drawCharts(root, specs) {
  for (const place of root.querySelectorAll(".chart")) {
    const spec = specs[Number(place.dataset.chart)];
    const caption = place.closest("figure").querySelector("figcaption");
    place.setAttribute("role", "img");
    if (caption) place.setAttribute("aria-label", caption.textContent.trim());
    addTools(place, spec);
    if (!place.querySelector("img")) place.style.minHeight = "340px"; // else all would be near the window
    waiting.set(place, async () => { await keepDrawn(place, spec); place.style.minHeight = ""; });
    near.observe(place);
  }
  setTimeout(drawRest, 300);
}

// Draws a chart, and again whenever its width or the colours change; resolves when it was first drawn.
function keepDrawn(place, spec) {
  let last = 0, timer = 0;
  const redraw = async (anyway) => {
    const width = place.clientWidth;
    if (!width || !place.isConnected || (!anyway && Math.abs(width - last) < 2)) return;
    last = width;
    try { await draw(place, spec); } catch (error) { console.error(error); }
  };
  const first = redraw(true);
  new ResizeObserver(() => { clearTimeout(timer); timer = setTimeout(redraw, last ? 150 : 0); }).observe(place);
  night.addEventListener("change", () => redraw(true));
  printing.addEventListener("change", () => redraw(true));
  return first;
}

addEventListener("beforeprint", () => { for (const place of [...waiting.keys()]) drawNow(place); });

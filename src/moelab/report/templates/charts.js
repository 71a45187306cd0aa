// Draws charts at the width of their cards and in the page's colours, again when either changes. Nothing is fetched.
const embedding = { renderer: "svg", actions: false };
const night = matchMedia("(prefers-color-scheme: dark)");
const printing = matchMedia("print");

// The specification with every colour of the light theme exchanged for its counterpart in the dark one.
function recoloured(node) {
  if (typeof node === "string") return darkColors[node] || node;
  if (Array.isArray(node)) return node.map(recoloured);
  if (node && typeof node === "object")
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, key === "values" ? value : recoloured(value)]));
  return node;
}

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
  const themed = night.matches && !printing.matches ? recoloured(spec) : spec;
  let width = panelWidth(spec);
  for (let attempt = 0; attempt < 3; attempt++) {
    const result = await vegaEmbed(place, sized(themed, width, columns, narrow), embedding);
    const picture = place.querySelector("svg");
    const drawn = picture ? parseFloat(picture.getAttribute("width")) : room;
    const better = Math.min(Math.floor(width + (room - drawn) / columns), 1.35 * panelWidth(spec) * (narrow ? 4 : 1));
    if (Math.abs(better - width) < 3 || better < 90) break;
    result.finalize();
    width = better;
  }
}

// Saves the chart as it is drawn for print: in the light colours, at its own width.
async function save(spec, kind, name) {
  const place = document.createElement("div");
  const { view } = await vegaEmbed(place, structuredClone(spec), embedding);
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

// Draws `specs` into the places below `root` whose data-chart names them.
function drawCharts(root, specs) {
  for (const place of root.querySelectorAll(".chart")) {
    const spec = specs[Number(place.dataset.chart)];
    const caption = place.closest("figure").querySelector("figcaption");
    place.setAttribute("role", "img");
    if (caption) place.setAttribute("aria-label", caption.textContent.trim());
    addTools(place, spec);
    let last = 0, timer = 0;
    const redraw = (anyway) => {
      const width = place.clientWidth;
      if (!width || (!anyway && Math.abs(width - last) < 2)) return;
      last = width;
      draw(place, spec).catch((error) => console.error(error));
    };
    new ResizeObserver(() => { clearTimeout(timer); timer = setTimeout(redraw, last ? 150 : 0); }).observe(place);
    night.addEventListener("change", () => redraw(true));
    printing.addEventListener("change", () => redraw(true));
  }
}

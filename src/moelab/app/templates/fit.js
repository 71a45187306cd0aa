// The fit page: a table is chosen or dropped, its columns are mapped, laws are fitted, the planner goes on with them.
const at = (id) => document.getElementById(id);
const form = at("fit");
let given = null, job = null;

async function send(address, body, method = "POST") {
  const reply = await fetch(address, { method, body });
  return reply.json();
}

function show(error) {
  at("error").textContent = error || "";
  at("error").hidden = !error;
}

async function take(file) {
  if (!file) return;
  show("");
  at("status").textContent = `Reading ${file.name}…`;
  let reply = { error: "file: the server does not answer" };
  try { reply = await send("/fit/table?name=" + encodeURIComponent(file.name), file); } catch (error) { console.error(error); }
  at("status").textContent = "";
  if (reply.error) return show(reply.error);
  given = { table: reply.sha256, name: file.name };
  at("status").textContent = `${file.name}: ${reply.n_rows.toLocaleString("en")} rows, ${reply.columns.length} columns.`;
  preview(reply);
  for (const field of form.querySelectorAll("[data-variable]")) {
    const [column, unit] = reply.mapping[field.dataset.variable] || ["", "1"];
    const select = field.querySelector(".column");
    select.replaceChildren(new Option("\u2013", ""), ...reply.columns.map((name) => new Option(name, name)));
    select.value = column;
    field.querySelector(".unit").value = unit;
  }
  for (const id of ["columns", "laws", "start"]) at(id).hidden = false;
  clear();
  check();
}

function preview(reply) {
  const table = document.createElement("table");
  const row = (cells, kind) => {
    const line = document.createElement("tr");
    for (const cell of cells) {
      const made = document.createElement(kind);
      made.textContent = cell === null ? "\u2013" : cell;
      line.append(made);
    }
    return line;
  };
  const head = document.createElement("thead");
  head.append(row(reply.columns, "th"));
  const body = document.createElement("tbody");
  body.append(...reply.rows.map((cells) => row(cells, "td")));
  table.append(head, body);
  at("preview").querySelector(".scroll").replaceChildren(table);
  at("preview").hidden = false;
}

function clear() {
  at("result").replaceChildren();
  for (const id of ["summary", "onward"]) at(id).hidden = true;
}

// What the fit answers stands first, its first sentence as the heading.
function summarise(sentences) {
  at("summary").replaceChildren(...sentences.map((sentence, place) => {
    const line = document.createElement(place ? "p" : "h1");
    line.className = place ? "answer" : "";
    line.textContent = sentence;
    return line;
  }));
  at("summary").hidden = false;
}

function asked() {
  const mapping = {};
  for (const field of form.querySelectorAll("[data-variable]")) {
    const column = field.querySelector(".column").value;
    if (column) mapping[field.dataset.variable] = [column, field.querySelector(".unit").value];
  }
  const laws = [...form.querySelectorAll('[name="law"]:checked')].map((box) => box.value);
  return JSON.stringify({ ...given, mapping, laws });
}

async function check() {
  const reply = await send("/fit/check", asked());
  const box = at("notes").querySelector(".warning");
  box.replaceChildren(...(reply.notes || [reply.error]).map((note) => {
    const line = document.createElement("p");
    line.textContent = note;
    return line;
  }));
  at("notes").hidden = !box.childElementCount;
}

async function start() {
  show("");
  clear();
  const reply = await send("/fit/jobs", asked());
  if (reply.error) return show(reply.error);
  job = reply.job;
  busy(true);
  follow(job);
}

function busy(is) {
  at("start").hidden = is;
  at("cancel").hidden = !is;
  at("progress").hidden = !is;
  at("progress").removeAttribute("value");
  if (is) at("status").textContent = "Fitting…";
}

async function follow(name) {
  const begun = performance.now();
  while (job === name) {
    await new Promise((done) => setTimeout(done, 300));
    let reply = null;
    try { reply = await (await fetch("/fit/jobs/" + name)).json(); } catch (error) { reply = { error: "fit: the server does not answer" }; }
    if (job !== name) return;
    if (reply.error) { job = null; busy(false); at("status").textContent = ""; return show(reply.error); }
    if (reply.html === undefined) { if (reply.share) at("progress").value = reply.share; continue; }
    job = null;
    busy(false);
    at("status").textContent = `Fitted in ${((performance.now() - begun) / 1000).toFixed(1)} s.`;
    summarise(reply.answer);
    at("result").innerHTML = reply.html;
    drawCharts(at("result"), reply.specs);
    prepareTables(at("result"));
    at("plan").href = `/?flops=${reply.flops}&law=upload:` + reply.sha256;
    at("file").href = "/fit/file/" + reply.sha256;
    at("onward").hidden = false;
  }
}

async function cancel() {
  const name = job;
  job = null;
  busy(false);
  at("status").textContent = "Cancelled.";
  await send("/fit/jobs/" + name, undefined, "DELETE");
}

at("table").addEventListener("change", (event) => take(event.target.files[0]));
form.addEventListener("change", (event) => {
  if (!given || !event.target.matches(".column, .unit")) return;
  if (!at("onward").hidden) at("status").textContent = "The fit below is of the columns before this change.";
  check();
});
form.addEventListener("submit", (event) => { event.preventDefault(); if (given) start(); });
at("cancel").addEventListener("click", cancel);
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });

// The planner page: a change of a field asks for a new answer, and the address always names what is shown.
const form = document.getElementById("state");
const place = document.getElementById("answer");
const evidence = document.getElementById("evidence");
const after = document.getElementById("changes");
const statusLine = document.getElementById("status");
const errorLine = document.getElementById("error");
let asking = null, pause = 0;

function query() {
  const pairs = [...new FormData(form)].filter(([, value]) => typeof value === "string" && value.trim());
  return new URLSearchParams(pairs.map(([name, value]) => [name, value.trim()])).toString();
}

// The bare address stands for the example, so that a form without values needs one of its own.
function addressOf(asked) {
  return "/?" + (asked || "flops=");
}

function fill(element, part) {
  element.classList.remove("waiting");
  element.innerHTML = element === place ? part.lead + part.html : part.html;
  drawCharts(element, part.specs);
  prepareTables(element);
}

function showError(part) {
  for (const field of form.querySelectorAll(".field.bad")) {
    field.classList.remove("bad");
    field.querySelector(".wrong").hidden = true;
    for (const entry of field.querySelectorAll("[aria-invalid]")) {
      entry.removeAttribute("aria-invalid");
      entry.removeAttribute("aria-describedby");
    }
  }
  const field = part.error && part.field ? form.querySelector(`[data-field="${CSS.escape(part.field)}"]`) : null;
  if (field) {
    field.classList.add("bad");
    field.closest("details").open = true;
    const line = field.querySelector(".wrong");
    line.textContent = part.error;
    line.hidden = false;
    const entry = field.querySelector("input:not([type=checkbox]), select");
    if (entry) { entry.setAttribute("aria-invalid", "true"); entry.setAttribute("aria-describedby", line.id); }
  }
  errorLine.textContent = part.error || "";
  errorLine.hidden = !part.error;
}

async function get(part, asked, signal) {
  const reply = await fetch(`/part/${part}?${asked}`, { signal });
  return reply.json();
}

async function ask(remember) {
  if (asking) asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const asked = query();
  if (remember) history.pushState(null, "", addressOf(asked));
  for (const part of [place, evidence, after]) part.classList.add("waiting");
  statusLine.textContent = "Planning…";
  const begun = performance.now();
  try {
    const found = await get("answer", asked, signal);
    showError(found);
    outdated(found.error ? place.dataset.shown : null);
    if (!found.error) {
      fill(place, found);
      place.dataset.shown = asked;
      for (const link of document.querySelectorAll("#downloads a"))
        link.href = link.href.split("?")[0] + "?" + asked;
    }
    statusLine.textContent = found.error ? "" : `Answered in ${((performance.now() - begun) / 1000).toFixed(1)} s.`;
    if (found.error) settled();
    place.dataset.asked = asked;
    if (!found.error) { await showEvidence(asked, signal); await showChanges(asked, signal); }
  } catch (error) {
    if (error.name === "AbortError") return;
    settled();
    statusLine.textContent = "";
    showError({ error: "The server does not answer." });
    outdated(place.dataset.shown);
  }
}

// Where settings are refused, what stands below answers the ones before: it is dimmed, named so, and not offered as files.
function outdated(shown) {
  const past = typeof shown === "string";
  for (const part of [place, evidence, after]) part.classList.toggle("outdated", past);
  document.getElementById("downloads").hidden = past || shown !== null;
  const line = document.getElementById("outdated");
  line.hidden = !past;
  if (past) line.querySelector("a").href = addressOf(shown);
}

function settled() {
  for (const part of [place, evidence, after]) part.classList.remove("waiting");
}

// What follows from the answer; the answer's sentences come again, with the limits that turned out to bind.
async function showEvidence(asked, signal) {
  const found = await get("evidence", asked, signal);
  if (found.error) return;
  fill(evidence, found);
  const complete = document.createElement("template");
  complete.innerHTML = found.lead;
  document.getElementById("lead").replaceWith(complete.content);
  evidence.dataset.asked = asked;
}

async function showChanges(asked, signal) {
  const found = await get("changes", asked, signal);
  if (!found.error) fill(after, found);
  after.dataset.asked = asked;
}

// Fields as the address has them, for the browser's back and forward. A bare address stands for the example.
function restore() {
  const wanted = new URLSearchParams(location.search.length > 1 ? location.search : document.body.dataset.example);
  for (const field of form.elements) {
    if (!field.name) continue;
    if (field.type === "checkbox") field.checked = wanted.getAll(field.name).includes(field.value);
    else field.value = wanted.get(field.name) || "";
  }
  ask(false);
}

async function upload(input) {
  const file = input.files[0];
  const line = input.parentElement.querySelector(".wrong");
  if (!file) return;
  let reply = { error: "file: the server does not answer" };
  try { reply = await (await fetch("/upload", { method: "POST", body: file })).json(); } catch (error) { console.error(error); }
  line.textContent = reply.error || "";
  line.hidden = !reply.error;
  input.value = "";
  if (reply.error) return;
  for (const box of form.querySelectorAll('input[name="law"]')) box.checked = false;
  const tick = document.createElement("label");
  tick.className = "tick";
  const box = Object.assign(document.createElement("input"), { type: "checkbox", name: "law", checked: true });
  box.value = "upload:" + reply.sha256;
  tick.append(box, ` ${file.name} (${reply.laws.join(", ")})`);
  form.querySelector('[data-field="law"] fieldset').append(tick);
  ask(true);
}

document.body.classList.add("live");
form.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(pause); ask(true); });
form.addEventListener("input", (event) => {
  if (event.target.type === "file" || event.target.matches("select, [type=checkbox]")) return;
  clearTimeout(pause);
  pause = setTimeout(() => ask(true), 350);
});
form.addEventListener("change", (event) => {
  clearTimeout(pause);
  if (event.target.type === "file") upload(event.target);
  else if (event.target.matches("select, [type=checkbox]")) ask(true);
});
addEventListener("popstate", restore);
if (matchMedia("(max-width: 860px)").matches)
  for (const group of form.querySelectorAll("details.group")) group.open = group.querySelector(".bad") !== null;

drawCharts(evidence, JSON.parse(document.getElementById("charts").textContent));
prepareTables(document);
place.dataset.asked = evidence.dataset.asked = query();
if (place.innerHTML.trim()) {
  place.dataset.shown = query();
  showChanges(query(), undefined);
}

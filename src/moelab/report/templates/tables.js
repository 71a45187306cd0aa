// Tables that sort by a click on a heading, filter as one types, and download as CSV. Nothing is fetched.
const MANY = 8, SHOWN = 100; // page.css hides rows beyond 100 until then, too
const SCALES = { K: 1e3, M: 1e6, B: 1e9, G: 1e9, T: 1e12, "%": 0.01 };

// The number that a cell begins with ("1.28B", "2.98 \u2013 3.09", "$4.1M"), or null.
function numberOf(text) {
  const found = /^[\s~<>\u2265\u2264\u2248\u00b1$]*([+\-\u2212]?[\d,]*\.?\d+(?:e[+\-]?\d+)?)\s?([KMBGT%])?/.exec(text);
  if (!found) return null;
  return Number(found[1].replace(/,/g, "").replace("\u2212", "-")) * (SCALES[found[2]] || 1);
}

function compareCells(a, b) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return x - y;
  if (x !== null || y !== null) return x !== null ? -1 : 1;
  return a.localeCompare(b, "en", { numeric: true });
}

const EMPTY = ["", "\u2013"];

// What a cell holds: its exact number where the table prints fewer digits, else its text.
function content(cell) {
  return cell.dataset.value || cell.textContent.trim();
}

function sortRows(table, column, descending) {
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [content(row.cells[column]), row]);
  keyed.sort(([a], [b]) => {
    const missing = EMPTY.includes(a) - EMPTY.includes(b);
    return missing || (descending ? -1 : 1) * compareCells(a, b);
  });
  body.append(...keyed.map(([, row]) => row));
}

// What a spreadsheet takes for a formula; of cells with a sign, whole numbers and a lone dash are none.
const FORMULA = /^'*([=@\t\r\n\uff1d\uff0b\uff0d\uff20]|[+\-](?!$|(\d[\d.,]*|\.\d+)(e[+\-]?\d+)?\s?[KMBGT%x]?$))/i;

// A cell of the CSV: quoted where needed, and never read as a formula by a spreadsheet.
function csvCell(text) {
  const safe = FORMULA.test(text) ? "'" + text : text;
  return /[",\n\r]/.test(safe) ? '"' + safe.replace(/"/g, '""') + '"' : safe;
}

function csvOf(table) {
  const lines = [...table.rows].map((row) => [...row.cells].map((cell) => csvCell(content(cell))).join(","));
  return lines.join("\r\n") + "\r\n";
}

function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function button(text, label, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

// Headings become buttons; the state stands in aria-sort, where assistive technology finds it.
function makeSortable(table, redraw) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const made = button(head.textContent, "", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortRows(table, column, descending);
      redraw();
    });
    head.replaceChildren(made);
  });
}

// Where columns lie beyond the right edge, a note with their number, which changes as one scrolls.
function noteColumns(table, tools) {
  const scroll = table.closest(".scroll"), note = document.createElement("span");
  note.className = "beyond";
  tools.prepend(note);
  const count = () => {
    const edge = scroll.getBoundingClientRect().right;
    const heads = [...table.tHead.rows[0].cells];
    const hidden = heads.filter((head) => head.getBoundingClientRect().right > edge + 12).length;
    note.textContent = hidden ? `scroll for ${hidden} more column${hidden > 1 ? "s" : ""} \u2192` : "";
    scroll.classList.toggle("cut", hidden > 0);
  };
  scroll.addEventListener("scroll", count, { passive: true });
  new ResizeObserver(count).observe(scroll);
}

function prepareTable(table) {
  const tools = document.createElement("div");
  tools.className = "tools";
  const rows = table.tBodies[0].rows;
  let wanted = "", all = rows.length <= SHOWN;
  const count = document.createElement("span");
  count.setAttribute("role", "status");
  const more = button("Show all", "", () => { all = true; redraw(); });
  function redraw() {
    let found = 0;
    for (const row of rows) {
      const fits = !wanted || row.textContent.toLowerCase().includes(wanted);
      found += fits;
      row.hidden = !fits || (!all && found > SHOWN);
    }
    more.hidden = all || found <= SHOWN;
    const shown = more.hidden ? found : SHOWN;
    count.textContent = wanted || !more.hidden ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows` : "";
  }
  if (rows.length > MANY) {
    const filter = document.createElement("input");
    filter.type = "search";
    filter.placeholder = "Filter rows";
    filter.setAttribute("aria-label", "Filter the rows of this table");
    filter.addEventListener("input", () => { wanted = filter.value.trim().toLowerCase(); redraw(); });
    tools.append(filter, count, more);
  }
  const section = table.closest("section");
  const title = section && section.querySelector("h2") ? section.querySelector("h2").textContent : document.title;
  const name = title.trim().toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") + ".csv";
  tools.append(button("CSV", "Download this table as CSV", () => download(csvOf(table), name)));
  table.closest(".scroll").before(tools);
  noteColumns(table, tools);
  if (rows.length > 1) makeSortable(table, redraw);
  redraw();
  table.classList.add("prepared");
}

function prepareTables(root) {
  for (const table of root.querySelectorAll(".scroll > table")) prepareTable(table);
}

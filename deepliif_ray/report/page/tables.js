"use strict";
// Tables: sorted by buttons in their heads, long ones shown a page at a time, searched and filtered.
const data = JSON.parse(document.getElementById("data").textContent);

// Numbers as deepliif_ray/report/numbers.py writes them; `fixed` is for percentages, which need no commas.
const fixed = (value, digits = 1) =>
  value === null ? "unknown" : value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
const whole = (value) => (value === null ? "unknown" : value.toLocaleString("en-US").replace("-", "−"));

/** Make an element; children are elements or texts, and texts stay texts. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** A text that may be broken after underscores, as names of flags have them. */
function breakable(text) {
  return text.split("_").flatMap((part, at) => (at ? ["_", make("wbr"), part] : [part]));
}

const flagged = (name) => make("span", { class: "flag" }, ...breakable(name));

const collator = new Intl.Collator("en", { numeric: true });

/** Compare two values to sort by; what is unknown comes last in either direction. */
function compare(one, other, direction) {
  const [a, b] = [one, other].map((value) => value === null || value === "" || value === undefined);
  if (a || b) return a - b;
  const order = typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other);
  return direction * order;
}

/** Let a head's cells be buttons that sort; `sort` gets the column and 1 or -1. */
function sortable(head, sort) {
  const cells = [...head.querySelectorAll("th")];
  cells.forEach((cell, column) => {
    const button = make("button", { type: "button" }, ...cell.childNodes);
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const numeric = cell.classList.contains("n");
      const was = cell.getAttribute("aria-sort");
      const direction = was === null ? (numeric ? -1 : 1) : was === "ascending" ? -1 : 1;
      cells.forEach((other) => other.removeAttribute("aria-sort"));
      cell.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      sort(column, direction);
    });
  });
}

/** What a cell of a written table is sorted by. */
function valueOf(cell) {
  const value = cell.dataset.value;
  if (value === undefined) return cell.textContent.trim();
  return value === "" ? null : Number(value);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  sortable(table.tHead, (column, direction) => {
    const rows = [...body.rows];
    rows.sort((a, b) => compare(valueOf(a.cells[column]), valueOf(b.cells[column]), direction));
    body.append(...rows);
  });
}

const SIZES = [50, 100, 500];

/**
 * A long table, of which a page is shown.
 *
 * `columns`: {label, numeric, value(row), fill(row, cell)}; the first is the row's head. `filters`: {label, choices}
 * of which a choice is {label, holds(row)}. `text(row)` is what is searched.
 */
function longTable(place, { caption, what, columns, rows, filters = [], text, search, kind = "" }) {
  let [shown, page, size] = [rows, 0, SIZES[1]];
  let order = null;
  const body = make("tbody");
  const head = make("thead", {}, make("tr", {}, ...columns.map((column) =>
    make("th", { scope: "col", class: column.numeric ? "n" : null }, column.label))));
  const table = make("table", { class: kind }, make("caption", {}, caption), head, body);
  const count = make("p", { class: "count", "aria-live": "polite" });
  const input = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const selects = filters.map(({ choices }) =>
    make("select", {}, ...choices.map(({ label }, at) => make("option", { value: at }, label))));
  const sizes = make("select", {}, ...[...SIZES, Infinity].map((rowsAtOnce) =>
    make("option", { value: rowsAtOnce }, rowsAtOnce === Infinity ? "all" : String(rowsAtOnce))));
  sizes.value = size;
  const before = make("button", { type: "button" }, "Previous");
  const after = make("button", { type: "button" }, "Next");
  const where = make("span");

  function draw() {
    const from = Math.min(page * size || 0, shown.length);
    const to = Math.min(from + size, shown.length);
    body.replaceChildren(...shown.slice(from, to).map((row) => {
      const line = make("tr");
      columns.forEach((column, at) => {
        const cell = at ? make("td", { class: column.numeric ? "n" : null }) : make("th", { scope: "row" });
        column.fill(row, cell);
        line.append(cell);
      });
      return line;
    }));
    const some = shown.length === rows.length ? whole(rows.length) : `${whole(shown.length)} of ${whole(rows.length)}`;
    count.textContent = `${some} ${what}` + (to - from < shown.length ? `, ${whole(from + 1)} to ${whole(to)} shown` : "");
    where.textContent = shown.length ? `Page ${page + 1} of ${Math.ceil(shown.length / size) || 1}` : "Nothing matches";
    before.disabled = page === 0;
    after.disabled = to >= shown.length;
  }

  function choose() {
    const wanted = input.value.trim().toLowerCase();
    const tests = selects.map((select, at) => filters[at].choices[select.value].holds).filter(Boolean);
    shown = rows.filter((row) => tests.every((holds) => holds(row)) && (!wanted || text(row).toLowerCase().includes(wanted)));
    if (order) {
      const { value } = columns[order.column];
      shown.sort((a, b) => compare(value(a), value(b), order.direction));
    }
    page = 0;
    draw();
  }

  sortable(head, (column, direction) => {
    order = { column, direction };
    choose();
  });
  input.addEventListener("input", choose);
  selects.forEach((select) => select.addEventListener("change", choose));
  sizes.addEventListener("change", () => {
    size = Number(sizes.value);
    page = 0;
    draw();
  });
  before.addEventListener("click", () => { page -= 1; draw(); });
  after.addEventListener("click", () => { page += 1; draw(); });
  place.append(
    make("div", { class: "controls", role: "search", "aria-label": caption },
      make("label", {}, search, input),
      ...selects.map((select, at) => make("label", {}, filters[at].label, select)),
      make("label", {}, "Rows on a page", sizes), count),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table),
    make("div", { class: "pager" }, before, after, where),
  );
  draw();
}

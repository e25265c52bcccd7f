// A table of any length: only the rows in sight are in the page.

import { el } from "./dom.js";

const ROW = 31;
const SPARE = 12;

function compare(a, b) {
  const none = (value) => value === null || value === undefined;
  if (none(a) || none(b)) return none(a) - none(b); // what is not known comes last, both ways
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

/**
 * Return a table that sorts by its headings.
 *
 * columns: [{name, title, number, show(row) -> node or text, value(row)}]
 */
export function dataTable(label, columns, { sorted = null, descending = false } = {}) {
  let rows = [];
  let order = { name: sorted, descending };
  const body = el("tbody");
  const above = el("tr", { class: "spacer", "aria-hidden": "true" }, el("td", { colspan: columns.length }));
  const below = above.cloneNode(true);
  const headings = columns.map((column) =>
    el(
      "th",
      { scope: "col", class: column.number ? "number" : null },
      el("button", { type: "button", title: column.help, onclick: () => turnTo(column.name) }, column.title),
    ),
  );
  const table = el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, headings)), body);
  const box = el("div", { class: "table", tabindex: "0", role: "region", "aria-label": label }, table);

  function turnTo(name) {
    order = { name, descending: order.name === name ? !order.descending : false };
    sort();
  }

  function sort() {
    headings.forEach((heading, n) => {
      if (columns[n].name !== order.name) heading.removeAttribute("aria-sort");
      else heading.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    });
    const column = columns.find(({ name }) => name === order.name);
    if (column) {
      const sign = order.descending ? -1 : 1;
      const unknown = (row) => column.value(row) === null || column.value(row) === undefined;
      rows = [...rows].sort((a, b) =>
        unknown(a) || unknown(b) ? unknown(a) - unknown(b) : sign * compare(column.value(a), column.value(b)),
      );
    }
    draw(true);
  }

  let shown = [-1, -1];
  function draw(anew = false) {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - SPARE);
    const last = Math.min(rows.length, first + Math.ceil((box.clientHeight || 800) / ROW) + 2 * SPARE);
    if (!anew && first === shown[0] && last === shown[1]) return;
    shown = [first, last];
    above.firstChild.style.height = `${first * ROW}px`;
    below.firstChild.style.height = `${(rows.length - last) * ROW}px`;
    const lines = rows.slice(first, last).map((row, n) =>
      el(
        "tr",
        { "aria-rowindex": first + n + 2 },
        columns.map((column) => el("td", { class: column.number ? "number" : null }, column.show(row))),
      ),
    );
    body.replaceChildren(above, ...lines, below);
    table.setAttribute("aria-rowcount", rows.length + 1);
  }
  box.addEventListener("scroll", () => draw());
  new ResizeObserver(() => draw()).observe(box);

  return {
    element: box,
    set(given) {
      rows = given;
      box.scrollTop = 0;
      sort();
    },
  };
}

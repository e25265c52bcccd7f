// SQL over these results, in the sandbox, as a table and CSV.

import { post } from "./api.js";
import { el, number } from "./dom.js";
import { dataTable } from "./table.js";

const FIRST = "SELECT patient_id, marker, n_called, index_percent\nFROM patient_indices\nORDER BY index_percent DESC";

export async function sqlPage() {
  const query = el("textarea", { "aria-label": "SQL", spellcheck: "false" });
  query.value = sqlPage.last ?? FIRST;
  const said = el("p", { class: "quiet", role: "status" }, "Views and macros: see docs/data-dictionary.md. Ctrl+Enter runs it.");
  const run = el("button", { type: "submit", class: "main" }, "Run");
  const save = el("button", { type: "button", onclick: csv }, "CSV");
  const place = el("div", { class: "sql" });
  const form = el("form", { onsubmit: (event) => { event.preventDefault(); ask(); } },
    el("h1", {}, "SQL"), query, el("div", { class: "row" }, run, save, said));
  query.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
  });

  async function busy(what) {
    sqlPage.last = query.value;
    run.disabled = save.disabled = true;
    said.className = "quiet";
    said.textContent = "Asking …";
    const began = performance.now();
    try {
      return await what(() => `${((performance.now() - began) / 1000).toFixed(1)} s`);
    } catch (error) {
      said.className = "alarm";
      said.textContent = error.message;
      return null;
    } finally {
      run.disabled = save.disabled = false;
    }
  }
  const ask = () => busy(async (time) => {
    const answer = await post("/api/sql", { query: query.value });
    const isNumber = (name) => answer.rows.every((row) => row[name] === null || typeof row[name] === "number");
    const text = (value) => value === null ? el("span", { class: "quiet" }, "NULL")
      : typeof value === "object" ? JSON.stringify(value) : String(value);
    const table = dataTable("Answer", answer.columns.map((name) => ({
      name, title: name, number: answer.rows.length > 0 && isNumber(name),
      value: (row) => (row[name] !== null && typeof row[name] === "object" ? JSON.stringify(row[name]) : row[name]),
      show: (row) => text(row[name]),
    })));
    place.querySelector(".table")?.remove();
    place.append(table.element);
    table.set(answer.rows);
    const cut = answer.rows.length < answer.n_rows ? `, the first ${number(answer.rows.length)} shown; CSV has all` : "";
    said.textContent = `${number(answer.n_rows)} rows in ${time()}${cut}`;
  });
  function csv() {
    busy(async () => {
      const text = await post("/api/sql", { query: query.value, form: "csv" }, "text");
      const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "answer.csv" });
      link.click();
      said.textContent = "Saved as answer.csv";
    });
  }
  place.append(form);
  return { title: "SQL", element: place };
}

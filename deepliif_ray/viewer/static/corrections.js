// What a person says of cells: one that was clicked, or all inside a line.

import { get, post } from "./api.js";
import { stroke } from "./drawing.js";
import { el, number } from "./dom.js";

const CALLS = [["positive", "Positive"], ["negative", "Negative"], ["not_a_cell", "Not a cell"]];

export class Corrections {
  constructor(page) {
    this.page = page;
    this.kept = [];
    this.cell = null;
    this.line = null;
    this.facts = el("div", { role: "status" });
    this.lasso = el("button", { type: "button", "aria-pressed": "false", onclick: () => this.toggle() }, "Lasso");
    this.undo = el("button", { type: "button", onclick: () => this.takeBack() }, "Undo");
    this.buttons = CALLS.map(([call, title]) => el("button", { type: "button", onclick: () => this.keep(call) }, title));
    this.note = el("input", { type: "text", "aria-label": "Note on the correction", placeholder: "Note" });
    this.element = el("section", { "aria-label": "Corrections" }, el("h2", {}, "Cells and corrections"), this.facts,
      el("div", { class: "row" }, this.buttons), this.note,
      el("div", { class: "row" }, this.lasso,
        el("button", { type: "button", onclick: () => this.selectView() }, "Select the view"), this.undo));
    page.cells.extras.push((context, view) => this.paint(context, view));
    this.refresh();
  }

  paint(context, view) {
    if (this.cell) {
      const ring = [];
      for (let n = 0; n < this.cell.outline.length; n += 2) ring.push([this.cell.outline[n], this.cell.outline[n + 1]]);
      stroke(context, view, ring, "#ffd400", 3);
    }
    for (const line of [this.line, this.page.sheet.line]) {
      if (line) stroke(context, view, line, "#111", 1.5, line === this.line);
    }
  }

  refresh() {
    const { cell, line } = this;
    for (const button of this.buttons) button.disabled = (!cell && !line) || this.page.about.read_only;
    this.undo.disabled = !this.kept.length;
    if (cell) {
      const facts = [
        ["Cell", number(cell.cell_id)], ["Called", `${cell.positive ? "positive" : "negative"}, ${["0", "1+", "2+", "3+"][cell.strength] ?? "–"}`],
        ["Area", `${number(cell.area_px)} px, ${number(cell.area_um2, 1)} µm²`], ["Positive, negative", `${number(cell.positive_px)}, ${number(cell.negative_px)} px`],
        ["Marker", cell.marker_max === null ? "none" : number(cell.marker_max)], ["OD × 100", number(cell.od_mean, 1)],
        ["DAB", number(cell.dab_od_mean, 3)], ["Hematoxylin", number(cell.hematoxylin_od_mean, 3)],
        ["Centre", `${number(cell.x, 1)}, ${number(cell.y, 1)} px`],
        ...(cell.correction ? [["Corrected", `${cell.correction}, ${cell.corrected_by}`]] : []),
      ];
      this.facts.replaceChildren(el("dl", {}, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
    } else {
      this.facts.replaceChildren(el("p", { class: "quiet" }, line ? "All called cells inside the line are meant." : "Click a cell, or draw around many with the lasso."));
    }
  }

  async click(point) {
    this.line = null;
    const [x, y] = point;
    this.cell = await get("/api/cell", { slide: this.page.slide.slide_id, ...this.page.asked(), cutoffs: null, x, y });
    this.refresh();
    this.page.cells.draw();
  }

  toggle() {
    if (this.page.tool === "lasso") return this.page.pick(null);
    this.page.pick("lasso");
    this.page.sheet.loop((line) => {
      this.select(line);
      this.page.pick(null);
    }, () => this.page.cells.draw());
  }

  selectView() {
    const { x0, y0, x1, y1 } = this.page.cells.view().bounds;
    this.select([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
  }

  select(line) {
    this.cell = null;
    this.line = line;
    this.refresh();
    this.page.cells.draw();
  }

  clear() {
    this.cell = null;
    this.line = null;
    this.refresh();
  }

  async keep(call) {
    const which = this.cell ? { place: this.cell.place } : { polygon: this.line };
    await this.page.change(async (author) => {
      const done = await post("/api/correct", {
        slide: this.page.slide.slide_id, call, author, note: this.note.value, ...which,
        region: this.page.asked().region, cutoffs: this.page.cutoffsAsked(),
      });
      this.kept.push(done.import_id);
      this.clear();
      await this.page.reloadCells();
      return `${number(done.n_cells)} cells: ${call.replaceAll("_", " ")}.`;
    });
    this.refresh();
  }

  async takeBack() {
    await this.page.change(async () => {
      await post("/api/undo", { kind: "corrections", import_id: this.kept.at(-1) });
      this.kept.pop();
      this.clear();
      await this.page.reloadCells();
      return "The last correction is taken back.";
    });
    this.refresh();
  }
}

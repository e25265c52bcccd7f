// Regions of a slide: drawn, edited, brought, taken along, kept. They are kept all together, as an import is.

import { address, post, send } from "./api.js";
import { stroke, write } from "./drawing.js";
import { el, newId, number } from "./dom.js";

const CLASSES = ["Tumor", "Stroma", "Immune cells", "Control", "Exclude"];

const polygonsOf = (geometry) => (geometry.type === "MultiPolygon" ? geometry.coordinates : [geometry.coordinates]);
const outerOf = (region) => polygonsOf(region.geometry)[0][0];
const isExclude = (name) => name.toLowerCase() === "exclude" || name.endsWith("*");

export class Regions {
  constructor(page) {
    this.page = page;
    this.list = page.slide.regions;
    this.unsaved = false;
    this.edited = null;
    const listId = newId();
    this.name = el("input", { type: "text", list: listId, value: "Tumor", "aria-label": "Class of new regions" });
    this.rows = el("ul", { class: "list" });
    this.save = el("button", { type: "button", class: "main", onclick: () => this.keep() }, "Save regions");
    this.undo = el("button", { type: "button", onclick: () => this.takeBack() }, "Undo saving");
    this.draw = el("button", { type: "button", "aria-pressed": "false", onclick: () => this.toggle() }, "Draw");
    const file = el("input", { type: "file", accept: ".geojson,.json", hidden: true, onchange: () => this.bring(file) });
    this.element = el("section", { "aria-label": "Regions" }, el("h2", {}, "Regions"),
      el("div", { class: "row" }, this.name, el("datalist", { id: listId }, CLASSES.map((name) => el("option", { value: name }))),
        this.draw, el("button", { type: "button", onclick: () => this.addView() }, "Add the view")),
      this.rows,
      el("div", { class: "row" }, this.save, this.undo,
        el("button", { type: "button", onclick: () => file.click() }, "Import …"), file,
        el("a", { class: "button", href: address("/api/regions", { slide: page.slide.slide_id }), download: "" }, "Export")));
    this.kept = [];
    this.refresh();
    page.cells.extras.push((context, view) => this.paint(context, view));
  }

  colourOf(region) {
    if (isExclude(region.class)) return "rgb(90,90,90)";
    const names = [...new Set(this.list.map((r) => r.class.toLowerCase()).filter((name) => !isExclude(name)))].sort();
    return `rgb(${this.page.about.regions[Math.max(0, names.indexOf(region.class.toLowerCase())) % this.page.about.regions.length]})`;
  }

  paint(context, view) {
    for (const region of this.list) {
      for (const polygon of polygonsOf(region.geometry)) {
        for (const ring of polygon) stroke(context, view, ring, this.colourOf(region), region === this.edited ? 3 : 2);
      }
      write(context, view, outerOf(region)[0], region.class + (isExclude(region.class) ? " (not counted)" : ""));
      if (region !== this.edited) continue;
      context.fillStyle = "#fff";
      const size = (8 * view.ratio) / view.scale;
      for (const [x, y] of this.ring) {
        context.fillRect(x - size / 2, y - size / 2, size, size);
        context.strokeRect(x - size / 2, y - size / 2, size, size);
      }
    }
  }

  toggle() {
    if (this.page.tool === "draw") return this.page.pick(null);
    this.page.pick("draw");
    this.page.sheet.loop((line) => {
      this.add(thinned(line, this.page.cells.view()));
      this.page.pick(null);
    }, () => this.page.cells.draw());
  }

  addView() {
    const { x0, y0, x1, y1 } = this.page.cells.view().bounds;
    this.add([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]);
  }

  add(line) {
    const { width, height } = this.page.slide;
    const ring = line.map(([x, y]) => [Math.min(width, Math.max(0, x)), Math.min(height, Math.max(0, y))]);
    this.list = [...this.list, { class: this.name.value.trim() || "Tumor", name: null,
      geometry: { type: "Polygon", coordinates: [[...ring, ring[0]]] } }];
    this.changed();
  }

  edit(region) {
    if (this.edited === region) return this.stopEditing();
    this.stopEditing();
    this.page.pick("edit");
    this.edited = region;
    this.ring = outerOf(region).slice(0, -1).map((point) => [...point]);
    const reach = () => {
      const view = this.page.cells.view();
      return (10 * view.ratio) / view.scale;
    };
    this.page.sheet.corners(this.ring, reach, () => {
      outerOf(region).splice(0, Infinity, ...this.ring, this.ring[0]);
      this.unsaved = true;
      this.page.cells.draw();
      this.refresh();
    });
    this.refresh();
    this.page.cells.draw();
  }

  stopEditing() {
    if (!this.edited) return;
    this.edited = null;
    this.page.pick(null);
    this.refresh();
  }

  changed() {
    this.unsaved = true;
    this.refresh();
    this.page.cells.draw();
  }

  refresh() {
    this.rows.replaceChildren(...this.list.map((region) => {
      const name = el("input", { type: "text", value: region.class, "aria-label": "Class",
        onchange: () => { region.class = name.value.trim() || region.class; this.changed(); } });
      return el("li", {}, name,
        el("span", { class: "quiet" }, region.area_mm2 ? `${number(region.area_mm2, 3)} mm²` : "new"),
        el("button", { type: "button", "aria-pressed": String(region === this.edited), onclick: () => this.edit(region) }, "Edit"),
        el("button", { type: "button", "aria-label": `Remove region ${region.class}`,
          onclick: () => { this.stopEditing(); this.list = this.list.filter((other) => other !== region); this.changed(); } }, "×"));
    }));
    if (!this.list.length) this.rows.append(el("li", { class: "quiet" }, "None"));
    this.save.disabled = !this.unsaved || this.page.about.read_only;
    this.undo.disabled = !this.kept.length;
  }

  async keep() {
    this.stopEditing();
    const regions = this.list.map(({ region_id, geometry, name, ...region }) => ({ region_id, geometry, name, class: region.class }));
    await this.page.change(async (author) => {
      const done = await post("/api/regions", { slide: this.page.slide.slide_id, regions, author });
      return this.after(done);
    });
  }

  async bring(file) {
    const [chosen] = file.files;
    if (!chosen) return;
    await this.page.change(async (author) => {
      const done = await send("/api/regions_file", { slide: this.page.slide.slide_id, author }, chosen);
      return this.after(done);
    });
    file.value = "";
  }

  async takeBack() {
    await this.page.change(async () => {
      await post("/api/undo", { kind: "regions", import_id: this.kept.at(-1) });
      this.kept.pop();
      await this.reload();
      return "The regions are what they were.";
    });
  }

  async after(done) {
    this.kept.push(done.import_id);
    await this.reload();
    const lacks = Object.values(done.without_tissue);
    return `${number(done.n_regions)} regions kept.${lacks.length ? ` Tissue in them is not known: ${lacks[0]}` : ""}`;
  }

  async reload() {
    this.list = (await this.page.fresh()).regions;
    this.unsaved = false;
    this.refresh();
    this.page.regionsChanged(this.list);
  }
}

/** Leave out points that change the line by less than a pixel of the screen. */
function thinned(line, view) {
  const reach = view.ratio / view.scale;
  const keep = new Set([0, line.length - 1]);
  const walk = (from, to) => {
    let [far, most] = [-1, reach];
    const [[x0, y0], [x1, y1]] = [line[from], line[to]];
    const length = Math.hypot(x1 - x0, y1 - y0);
    for (let n = from + 1; n < to; n += 1) {
      const [x, y] = line[n];
      const away = length ? Math.abs((x1 - x0) * (y0 - y) - (x0 - x) * (y1 - y0)) / length : Math.hypot(x - x0, y - y0);
      if (away > most) [far, most] = [n, away];
    }
    if (far < 0) return;
    keep.add(far);
    walk(from, far);
    walk(far, to);
  };
  walk(0, line.length - 1);
  const kept = line.filter((_, n) => keep.has(n));
  return kept.length > 2 ? kept : line;
}


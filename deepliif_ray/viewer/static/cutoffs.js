// The cut-offs of a slide: sliders, named sets.

import { post } from "./api.js";
import { MAX_AREA } from "./calls.js";
import { el, newId } from "./dom.js";
import { sketch } from "./histogram.js";

const NAMES = {
  size_thresh: "Larger than, px", size_thresh_upper: "Smaller than, px", marker_thresh: "Marker above",
  od_thresh_lower: "OD × 100 from", od_thresh_upper: "OD × 100 up to",
  weak: "1+ from, DAB", moderate: "2+ from, DAB", strong: "3+ from, DAB",
};
export const STRENGTHS = ["weak", "moderate", "strong"];

export class Cutoffs {
  constructor(page, changed, released) {
    this.page = page;
    this.changed = changed;
    this.released = released;
    const none = { size_thresh_upper: null, marker_thresh: null, od_thresh_lower: null, od_thresh_upper: null };
    this.defaults = { ...none, ...page.slide.defaults };
    this.values = { ...this.defaults };
    this.fields = new Map();
    this.place = el("div");
    this.sets = el("select", { "aria-label": "Named cut-offs", onchange: () => this.take() });
    this.name = el("input", { type: "text", placeholder: "Name", "aria-label": "Name for these cut-offs" });
    this.note = el("input", { type: "text", placeholder: "Note", "aria-label": "Note on these cut-offs" });
    this.saveButton = el("button", { type: "button", onclick: () => this.save() }, "Save cut-offs");
    this.element = el("section", { "aria-label": "Cut-offs" },
      el("div", { class: "row" }, el("h2", { class: "grow" }, "Cut-offs"),
        el("button", { type: "button", onclick: () => this.setAll(this.defaults) }, "Defaults")),
      this.place, el("div", { class: "row" }, this.sets),
      el("div", { class: "row" }, this.name, this.note, this.saveButton));
    this.saveButton.disabled = page.about.read_only;
    this.list(page.slide.sets);
  }

  list(sets) {
    const option = ({ name, note }) => el("option", { value: name, title: note }, name);
    this.sets.replaceChildren(el("option", { value: "" }, "Take a named set …"), ...sets.map(option));
  }

  /** Make the sliders, when the measurements are known. */
  show(spreads, areaEnd) {
    const upTo = (name, end) => Math.min(MAX_AREA, Math.max(end, Math.ceil((this.values[name] ?? 0) * 1.5)));
    const size = upTo("size_thresh", areaEnd);
    const ranges = {
      size_thresh: [0, size, 1, spreads.size], size_thresh_upper: [0, size, 1, spreads.size],
      marker_thresh: [0, 255, 1, spreads.marker], od_thresh_lower: [0, 400, 1, spreads.od], od_thresh_upper: [0, 400, 1, spreads.od],
      weak: [0, 1.5, 0.01, spreads.dab], moderate: [0, 1.5, 0.01, spreads.dab], strong: [0, 1.5, 0.01, spreads.dab],
    };
    this.place.replaceChildren(...Object.entries(ranges).map(([name, range]) => this.field(name, ...range)));
    this.refresh();
  }

  field(name, least, most, step, counts) {
    const id = newId();
    const optional = this.defaults[name] === null;
    const box = optional && el("input", { type: "checkbox", "aria-label": `${NAMES[name]}: use it`, onchange: () => {
      this.set(name, box.checked ? Number(range.value) : null, true);
    } });
    const typed = el("input", { type: "number", id, min: least, max: name.startsWith("size") ? MAX_AREA : most, step,
      onchange: () => this.set(name, Number(typed.value), true) });
    const range = el("input", { type: "range", min: least, max: most, step, "aria-label": NAMES[name],
      oninput: () => this.set(name, Number(range.value), false), onchange: () => this.released() });
    if (optional) range.value = name.endsWith("lower") || name === "marker_thresh" ? least : most;
    this.fields.set(name, { box, typed, range });
    return el("div", { class: "cutoff", "data-name": name },
      el("div", { class: "heading" }, box, el("label", { for: id }, NAMES[name]), typed), sketch(counts), range);
  }

  set(name, value, released) {
    if (value !== null && !Number.isFinite(value)) return this.refresh();
    this.values = { ...this.values, [name]: value };
    // The three must rise: the others give way.
    const at = STRENGTHS.indexOf(name);
    STRENGTHS.forEach((other, n) => {
      if (at < 0 || n === at) return;
      if (n < at ? this.values[other] > value : this.values[other] < value) this.values[other] = value;
    });
    this.refresh();
    this.changed();
    if (released) this.released();
  }

  setAll(values) {
    this.values = { ...this.defaults, ...values };
    this.refresh();
    this.changed();
    this.released();
  }

  refresh() {
    for (const [name, { box, typed, range }] of this.fields) {
      const value = this.values[name];
      if (box) box.checked = value !== null;
      typed.value = value ?? "";
      typed.disabled = Boolean(box) && value === null;
      if (value !== null) range.value = value;
    }
  }

  /** Return what differs from the slide's defaults, as SQL takes it: all values, or null if none does. */
  asked() {
    const differs = Object.keys(this.values).some((name) => this.values[name] !== this.defaults[name]);
    if (!differs) return null;
    return Object.fromEntries(Object.entries(this.values).filter(([, value]) => value !== null));
  }

  async take() {
    const name = this.sets.value;
    if (!name) return;
    try {
      const values = await post("/api/cutoff_set", { slide: this.page.slide.slide_id, cutoffs: name });
      this.setAll(Object.fromEntries(Object.keys(NAMES).map((key) => [key, values[key] ?? null])));
    } catch (error) {
      this.page.tell(error.message);
    }
  }

  async save() {
    await this.page.change(async (author) => {
      const values = Object.fromEntries(Object.entries(this.values).filter(([, value]) => value !== null));
      const { marker } = this.page.slide;
      await post("/api/cutoffs", { name: this.name.value.trim(), marker, values, note: this.note.value, author });
      const slide = await this.page.fresh();
      this.list(slide.sets);
      return `Kept for ${marker}: cutoffs := '${this.name.value.trim()}'`;
    });
  }
}


// A slide: tissue, cells at any cut-off, index, hot spots, regions, corrections.

import { address, get, post } from "./api.js";
import { areExact } from "./calls.js";
import { CellsLayer } from "./cells.js";
import { Corrections } from "./corrections.js";
import { Counter } from "./counter.js";
import { Cutoffs } from "./cutoffs.js";
import { Sheet, imagePoint, stroke, write } from "./drawing.js";
import { el, newId, number, tell } from "./dom.js";
import { Regions } from "./regions.js";

const STRENGTH_NAMES = ["0", "1+", "2+", "3+"];
const WHITE = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='256' height='256'%3E%3Crect width='256' height='256' fill='%23fff'/%3E%3C/svg%3E";
const ROUND_UM = [1, 2, 5];

export async function slidePage(id, about) {
  const counter = new Counter(); // a worker takes its time to start
  try {
    const slide = await get("/api/slide", { slide: id });
    const page = new SlidePage(slide, about, counter);
    return { title: slide.slide_id, element: page.element, shown: () => page.open(), leave: () => page.close() };
  } catch (error) {
    counter.close();
    throw error;
  }
}

class SlidePage {
  constructor(slide, about, counter) {
    this.slide = slide;
    this.about = about;
    this.counter = counter;
    this.tell = tell;
    this.tool = null;
    this.osd = el("div", { class: "osd", role: "application",
      "aria-label": `Slide ${slide.slide_id}. Arrows move, plus and minus zoom, 0 shows all, r turns.` });
    this.scaleBar = el("div", { class: "scale" });
    this.said = el("div", { class: "said", role: "status" }, "Opening the slide …");
    this.stage = el("div", { class: "stage" }, this.osd, this.scaleBar, this.said);
    this.big = el("div", { class: "big" }, "–");
    this.line = el("div", { class: "quiet counts" });
    this.confirmed = el("div", { class: "quiet", role: "status", "aria-live": "polite", id: "confirmed" });
    this.alarms = el("div");
    this.legend = el("div");
    this.panel = el("aside", { class: "panel", "aria-label": "Slide" });
    this.element = el("div", { class: "slide" }, this.stage, this.panel);
    window.deepliif = this; // for tests, and for the curious
  }

  async open() {
    // Cells come while the slide is being opened.
    this.first = this.counter.fetch(this.slide.slide_id, { region: null, corrections: true });
    this.first.catch(() => {}); // whoever waits for it hears of it
    const tissue = await get("/api/tissue", { slide: this.slide.slide_id }).catch((error) => ({ is_there: false, problem: error.message, tile: 256 }));
    if (this.closed) return;
    this.viewer = OpenSeadragon({
      element: this.osd, showNavigationControl: false, showNavigator: true, navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.16, navigatorOpacity: 1, navigatorAutoFade: false, drawer: "canvas", animationTime: 0.4, maxZoomPixelRatio: 4, visibilityRatio: 0.4,
      gestureSettingsMouse: { clickToZoom: false }, immediateRender: true, imageLoaderLimit: 4,
      smoothTileEdgesMinZoom: Infinity, // it moves what was drawn by up to two pixels, which leaves a strip at the edge
      tileSources: this.tilesOf(tissue),
    });
    this.viewer.addOnceHandler("open", () => this.opened());
    this.viewer.addHandler("open-failed", () => (this.said.textContent = "The slide cannot be shown."));
    if (tissue.problem) this.alarms.append(el("div", { class: "alarm" }, tissue.problem, tissue.is_changed && this.offer()));
    this.sheet = new Sheet(this.stage, this.viewer);
    this.cells = new CellsLayer(this.osd.querySelector(".openseadragon-canvas") ?? this.osd, this.viewer, this.slide, this.about, this.counter, (totals) => this.counted(totals));
    this.cutoffs = new Cutoffs(this, () => this.moved(), () => this.confirm());
    this.regions = new Regions(this);
    this.corrections = new Corrections(this);
    this.buildPanel();
    this.stage.append(this.tools());
    this.viewer.addHandler("canvas-click", (event) => {
      if (event.quick && !this.tool) this.clicked(event.position);
    });
    for (const name of ["update-viewport", "open"]) this.viewer.addHandler(name, () => this.drawScale());
    this.leaving = (event) => {
      if (this.regions.unsaved) event.preventDefault();
    };
    addEventListener("beforeunload", this.leaving);
  }

  /** Return where the viewer gets its tiles from. */
  tilesOf(tissue) {
    const { slide_id: slide, width, height } = this.slide;
    const deepest = tissue.deepest ?? Math.ceil(Math.log2(Math.max(width, height)));
    const given = { slide, version: tissue.version, changed: tissue.is_changed || null };
    const getTileUrl = (level, column, line) =>
      tissue.is_there ? address("/api/tile", { level, column, line, ...given }) : WHITE;
    const minLevel = Math.max(0, deepest - Math.ceil(Math.log2(Math.max(width, height) / 128)));
    return { width, height, tileSize: tissue.tile, minLevel, maxLevel: deepest, getTileUrl };
  }

  /** Return a button that shows a file which is not the one that was scored: with a word that stays, without cells. */
  offer() {
    const button = el("button", { type: "button", onclick: async () => {
      try {
        const tissue = await get("/api/tissue", { slide: this.slide.slide_id, changed: true });
        if (!tissue.is_there) return tell(tissue.problem, 15);
        button.remove();
        this.showCells(false);
        this.stage.append(el("p", { class: "alarm banner", role: "status" },
          `${tissue.problem}. Cells were found in another picture, so they are hidden; “Cells” shows them all the same.`));
        this.viewer.open(this.tilesOf(tissue));
      } catch (error) {
        tell(error.message);
      }
    } }, "Show the file that is there now");
    return el("div", { class: "row" }, button);
  }

  showCells(shown) {
    this.cells.shown = shown;
    this.cellsButton.setAttribute("aria-pressed", String(shown));
    this.cells.draw();
  }

  opened() {
    this.said.textContent = "Fetching cells …";
    this.reloadCells().then(() => (this.said.textContent = ""), (error) => {
      this.said.textContent = "No cells.";
      this.alarms.append(el("p", { class: "alarm" }, error.message));
    });
  }

  close() {
    this.closed = true;
    removeEventListener("beforeunload", this.leaving);
    this.cells?.close();
    this.counter.close();
    this.viewer?.destroy();
  }

  tools() {
    const { viewport } = this.viewer;
    const button = (title, text, do_) => el("button", { type: "button", title, "aria-label": title, onclick: do_ }, text);
    const by = (factor) => () => { viewport.zoomBy(factor); viewport.applyConstraints(); };
    this.cellsButton = el("button", { type: "button", "aria-pressed": "true", title: "Show cells",
      onclick: () => this.showCells(!this.cells.shown) }, "Cells");
    return el("div", { class: "tools", role: "toolbar", "aria-label": "View" },
      button("Zoom in", "+", by(1.5)), button("Zoom out", "−", by(1 / 1.5)), button("Whole slide", "All", () => viewport.goHome()),
      button("One pixel of the slide per pixel of the screen", "1:1", () => viewport.zoomTo(viewport.imageToViewportZoom(1))),
      button("Turn by 90 degrees", "⟳", () => viewport.setRotation(viewport.getRotation() + 90)), this.cellsButton);
  }

  buildPanel() {
    const { slide } = this;
    const text = (value) => (value === null || value === "" ? "–" : value);
    this.region = el("select", { "aria-label": "Count in", onchange: () => this.reloadCells().catch((error) => tell(error.message)) });
    this.regionsChanged(slide.regions, true);
    this.corrected = el("input", { type: "checkbox", id: newId(), checked: true,
      onchange: () => this.reloadCells().catch((error) => tell(error.message)) });
    const modes = [["call", "Call"], ["strength", "Strength"]].map(([name, title]) =>
      el("button", { type: "button", "aria-pressed": String(name === "call"), onclick: () => this.mode(name, modes) }, title));
    const maps = el("select", { "aria-label": "From afar", onchange: () => { this.cells.map = maps.value; this.cells.draw(); this.keys(); } },
      [["index", "Index by squares"], ["density", "Density by squares"], ["points", "Every cell"]].map(([value, title]) => el("option", { value }, title)));
    this.author = el("input", { type: "text", value: this.about.author, "aria-label": "Author of corrections, regions and cut-offs" });
    const flags = el("div");
    this.flags = flags;
    this.panel.replaceChildren(
      el("section", { "aria-label": "Index" },
        el("h1", {}, slide.slide_id), el("div", { class: "quiet" }, `${slide.marker}, patient ${slide.patient_id}`), this.alarms, flags,
        this.big, this.line, this.confirmed, this.legend,
        el("div", { class: "row" }, ...modes, maps),
        el("div", { class: "row" }, el("label", {}, "Count in ", this.region)),
        el("div", { class: "row" }, this.corrected, el("label", { for: this.corrected.id }, "with corrections"))),
      this.cutoffs.element, this.spotsSection(), this.corrections.element, this.regions.element,
      el("section", { "aria-label": "About" }, el("h2", {}, "About"),
        this.about.read_only ? el("p", { class: "quiet" }, "Opened with --read-only: nothing can be changed.")
          : el("label", { class: "field" }, "Author of what is kept", this.author),
        el("dl", {}, [["Size", `${number(slide.width)} × ${number(slide.height)} px`], ["Pixel", `${number(slide.mpp, 4)} µm`],
          ["Tissue", `${number(slide.tissue_mm2, 2)} mm²`], ["Model", text(slide.model)], ["Scored", text(slide.scored)]]
          .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
        slide.warnings.map((warning) => el("p", { class: "quiet" }, warning))),
    );
    this.keys();
  }

  mode(name, modes) {
    this.cells.byStrength = name === "strength";
    modes.forEach((button, n) => button.setAttribute("aria-pressed", String((n === 1) === this.cells.byStrength)));
    this.cells.draw();
    this.keys();
    if (this.totals) this.counted(this.totals);
  }

  keys() {
    const dot = (rgb, title) => {
      const mark = el("i");
      mark.style.background = `rgb(${rgb})`;
      return el("span", {}, mark, title);
    };
    const ramp = el("div", { class: "ramp", role: "img", "aria-label": "Colours of squares, from least to most" });
    const { heat } = this.about;
    ramp.style.background = `linear-gradient(to right, ${[0, 64, 128, 192, 255].map((n) => `rgb(${heat[n]})`).join(",")})`;
    const what = this.cells?.map === "density" ? ["0", "positive cells per mm²", "most"] : ["0", "index of squares, %", "100"];
    this.legend.replaceChildren(
      el("div", { class: "keys" }, this.cells?.byStrength
        ? STRENGTH_NAMES.map((name, n) => dot(this.about.strengths[n], name))
        : [dot(this.about.positive, "positive"), dot(this.about.negative, "negative")]),
      ...(this.cells?.map === "points" ? [] : [ramp, el("div", { class: "quiet" }, what.map((part) => el("span", {}, part)))]));
  }

  spotsSection() {
    this.spots = [];
    const cells = el("input", { type: "number", value: 500, min: 10, step: 10, "aria-label": "Cells of a hot spot" });
    const list = el("ul", { class: "list" });
    const find = el("button", { type: "button", onclick: async () => {
      find.disabled = true;
      list.replaceChildren(el("li", { class: "quiet" }, "Searching …"));
      try {
        const found = await post("/api/hot_spots", { slide: this.slide.slide_id, ...this.asked(), cutoffs: this.cutoffsAsked(), count: 3, cells: Number(cells.value) });
        this.spots = found.spots;
        list.replaceChildren(...found.spots.map((spot) => el("li", {},
          el("span", { class: "name" }, `${spot.rank}. ${number(spot.share_percent, 1)} % of ${number(spot.n_cells)}, radius ${number(spot.radius_um)} µm`),
          el("button", { type: "button", onclick: () => this.goTo(spot) }, "Show"))), ...found.lacking.map((why) => el("li", { class: "quiet" }, why)));
      } catch (error) {
        list.replaceChildren(el("li", { class: "alarm" }, error.message));
      }
      find.disabled = false;
      this.cells.draw();
    } }, "Find");
    this.cells.extras.push((context, view) => {
      for (const spot of this.spots) {
        const radius = spot.radius_um / this.slide.mpp;
        const ring = Array.from({ length: 64 }, (_, n) => [spot.x + 0.5 + radius * Math.cos((n * Math.PI) / 32), spot.y + 0.5 + radius * Math.sin((n * Math.PI) / 32)]);
        stroke(context, view, ring, "#111", 2);
        write(context, view, ring[56], `Hot spot ${spot.rank}`);
      }
    });
    return el("section", { "aria-label": "Hot spots" }, el("h2", {}, "Hot spots"),
      el("div", { class: "row" }, el("label", {}, "Cells ", cells), find), list,
      el("p", { class: "quiet" }, "The highest share of positive cells. A maximum is biased upward, so it has no interval."));
  }

  goTo(spot) {
    const radius = (1.4 * spot.radius_um) / this.slide.mpp;
    const item = this.viewer.world.getItemAt(0);
    this.viewer.viewport.fitBounds(item.imageToViewportRectangle(spot.x - radius, spot.y - radius, 2 * radius, 2 * radius));
  }

  asked() {
    return { region: this.region?.value || null, corrections: this.corrected?.checked ?? true };
  }

  cutoffsAsked() {
    return this.cutoffs.asked();
  }

  fresh() {
    return get("/api/slide", { slide: this.slide.slide_id });
  }

  async reloadCells() {
    const first = !this.cells.cells;
    const fetched = this.first ?? undefined;
    this.first = null;
    if (!(await this.cells.load(this.asked(), this.cutoffs.values, fetched))) return; // others are on their way
    if (first) this.cutoffs.show(this.cells.spreads, this.cells.areaEnd);
    await this.confirm();
  }

  regionsChanged(regions, quiet = false) {
    const chosen = this.region.value;
    const classes = [...new Set(regions.filter((region) => !region.excludes).map((region) => region.class))].sort();
    this.region.replaceChildren(el("option", { value: "" }, "the whole slide"), ...classes.map((name) => el("option", { value: name }, name)));
    this.region.value = classes.includes(chosen) ? chosen : "";
    if (!quiet) this.reloadCells().catch((error) => tell(error.message));
  }

  moved() {
    this.cells.set(this.cutoffs.values);
    this.spots = [];
  }

  /** Show what the page counted itself; SQL confirms it afterwards. */
  counted(totals) {
    this.totals = totals;
    const { called, positive, strengths } = totals;
    const exact = areExact(this.cutoffs.values) ? "" : "≈ ";
    const h = called ? (100 * (strengths[1] + 2 * strengths[2] + 3 * strengths[3])) / called : null;
    this.shownIndex = called ? (100 * positive) / called : null;
    this.shownH = h;
    this.big.textContent = this.cells.byStrength ? `H ${exact}${number(h, 1)}` : `${exact}${number(this.shownIndex, 2)} %`;
    this.line.textContent = this.cells.byStrength
      ? `${number(called)} cells: ${strengths.map((count, n) => `${STRENGTH_NAMES[n]} ${number(called ? (100 * count) / called : null, 1)} %`).join(", ")}`
      : `${number(positive)} of ${number(called)} cells`;
  }

  async confirm() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    this.isAsking = true;
    this.confirmed.textContent = "Asking SQL …";
    try {
      const found = await post("/api/index", { slide: this.slide.slide_id, ...this.asked(), cutoffs: this.cutoffsAsked() });
      if (turn !== this.turn) return;
      this.sql = found;
      const interval = found.ci_lower_percent === null ? "no interval" : `95 % interval ${number(found.ci_lower_percent, 1)} to ${number(found.ci_upper_percent, 1)} %`;
      const parts = [`SQL: ${number(found.n_positive)} of ${number(found.n_called)}, ${number(found.index_percent, 2)} %`, interval,
        found.h_score === null ? null : `H-score ${number(found.h_score, 1)}`, found.category].filter(Boolean);
      this.confirmed.textContent = parts.join("; ");
      const flags = found.flags.map((flag) => `Flag: ${flag.replaceAll("_", " ")}`);
      if (found.too_few_cells) flags.push("Too few cells for this marker");
      this.flags.replaceChildren(...flags.map((flag) => el("p", { class: "alarm" }, flag)), el("p", { class: "quiet" }, found.notes ?? ""));
    } catch (error) {
      if (turn === this.turn) this.confirmed.textContent = error.message;
    } finally {
      if (turn === this.turn) this.isAsking = false;
    }
  }

  async clicked(position) {
    try {
      await this.corrections.click(imagePoint(this.viewer, position.x, position.y));
    } catch (error) {
      tell(error.message);
    }
  }

  /** Take or leave a tool: "draw", "lasso", "edit" or null. */
  pick(tool) {
    this.tool = tool;
    this.sheet.close();
    if (tool !== "edit") this.regions.edited = null;
    this.regions.draw.setAttribute("aria-pressed", String(tool === "draw"));
    this.corrections.lasso.setAttribute("aria-pressed", String(tool === "lasso"));
    this.viewer.setMouseNavEnabled(!tool);
    this.cells.draw();
  }

  /** Change results, and say what was done or why not. */
  async change(do_) {
    this.isChanging = true;
    try {
      tell("Keeping it …", 60);
      tell(await do_(this.author.value));
    } catch (error) {
      tell(error.message, 15);
    }
    this.isChanging = false;
  }

  drawScale() {
    const view = this.cells?.view();
    if (!view) return;
    const pxPerUm = view.scale / view.ratio / this.slide.mpp;
    const most = 140 / pxPerUm;
    const power = 10 ** Math.floor(Math.log10(most));
    const um = Math.max(...ROUND_UM.map((factor) => factor * power).filter((value) => value <= most));
    const bar = el("i");
    bar.style.width = `${um * pxPerUm}px`;
    const name = um >= 1000 ? `${number(um / 1000)} mm` : `${um < 1 ? um.toPrecision(1) : number(um)} µm`;
    this.scaleBar.replaceChildren(el("span", {}, name), bar);
  }
}

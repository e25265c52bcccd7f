// The layers of cells over the tissue: squares from afar, points nearer, outlines near by.

import { get } from "./api.js";
import { callOf, limitsOf } from "./calls.js";
import { unpack } from "./packed.js";
import { pointsOn } from "./points.js";

const MOST_POINTS = 60_000; // drawn in about 50 ms by software GL
const LEAST_SQUARE = 9; // px of the screen
const OUTLINES_FROM = 9; // px of the screen, a usual nucleus
const OUTLINE_TILE = 1024;
const FEW = 5; // cells of a square that is shown paler
const KEPT_TILES = 60;

export class CellsLayer {
  /** `counter` has the cells; `changed` hears of new totals: {called, positive, strengths}. */
  constructor(stage, viewer, slide, about, counter, changed) {
    this.viewer = viewer;
    this.slide = slide;
    this.about = about;
    this.counter = counter;
    this.changed = changed;
    this.canvases = ["points", "plain"].map((name) => {
      const canvas = document.createElement("canvas");
      canvas.className = `layer ${name}`;
      canvas.setAttribute("aria-hidden", "true");
      stage.append(canvas);
      return canvas;
    });
    this.context = this.canvases[1].getContext("2d");
    this.cells = null;
    this.squares = null;
    this.outlines = new Map();
    this.shown = true;
    this.map = "index";
    this.byStrength = false;
    this.extras = []; // functions that draw on top: regions, hot spots, what is being drawn
    this.usualArea = 0;
    this.stats = { counted: 0, ms: 0 };
    for (const name of ["update-viewport", "resize", "rotate", "open"]) viewer.addHandler(name, () => this.draw());
  }

  /** What draws cells one by one. It is made when it is first needed: from afar it is not, and WebGL takes time. */
  get points() {
    if (!this.pointsMade) {
      this.pointsMade = pointsOn(this.canvases[0], this.about);
      if (this.cells) this.pointsMade.load(this.cells);
    }
    return this.pointsMade;
  }

  /** Take the cells that `counter` fetches, if none newer were asked for; `asked` restricts them: {region, corrections}. */
  async load(asked, cutoffs, fetched = this.counter.fetch(this.slide.slide_id, asked)) {
    this.asked = asked;
    const found = await fetched;
    if (found.isOld) return false;
    this.cells = unpack(found.buffer);
    this.pointsMade?.load(this.cells);
    this.outlines.clear();
    this.usualArea = found.usualArea;
    this.areaEnd = found.areaEnd;
    this.spreads = found.spreads;
    this.squares = null;
    await this.set(cutoffs);
    return true;
  }

  set(cutoffs) {
    this.limits = limitsOf(cutoffs);
    const counted = this.count(true);
    this.draw();
    return counted;
  }

  /** Count with the newest limits, one question at a time: a slider asks for more than can be answered. */
  async count(totals = false) {
    this.wantsTotals ||= totals;
    if (this.counting) {
      this.again = true;
      return;
    }
    this.counting = true;
    do {
      this.again = false;
      const wanted = this.wanted();
      if (!this.wantsTotals && !wanted.area) break;
      this.wantsTotals = false;
      const answer = await this.counter.count(this.limits, wanted);
      this.squares = answer.squares;
      this.stats.counted += 1;
      this.stats.ms = answer.ms;
      this.changed(answer.totals);
      if (answer.squares) this.draw(); // cells one by one are drawn already
    } while (this.again);
    this.counting = false;
  }

  /** Return where level-0 px lie on the canvas: a matrix around the middle of the view. */
  view() {
    const { viewport } = this.viewer;
    const item = this.viewer.world.getItemAt(0);
    if (!item) return null;
    const ratio = this.ratio();
    const point = (x, y) => viewport.viewportToViewerElementCoordinates(item.imageToViewportCoordinates(x, y));
    const box = this.canvases[1].getBoundingClientRect();
    const middle = item.viewportToImageCoordinates(
      viewport.viewerElementToViewportCoordinates(new OpenSeadragon.Point(box.width / 2, box.height / 2)),
    );
    const unit = 1000;
    const [from, right, down] = [point(0, 0), point(unit, 0), point(0, unit)];
    const matrix = {
      a: ((right.x - from.x) / unit) * ratio, b: ((right.y - from.y) / unit) * ratio,
      c: ((down.x - from.x) / unit) * ratio, d: ((down.y - from.y) / unit) * ratio,
    };
    const scale = Math.hypot(matrix.a, matrix.b);
    const half = Math.hypot(box.width, box.height) * ratio / (2 * scale);
    const turned = viewport.getRotation(true) % 180 !== 0;
    const reach = turned ? { x: half, y: half } : { x: (box.width * ratio) / (2 * scale), y: (box.height * ratio) / (2 * scale) };
    const bounds = {
      x0: Math.max(0, middle.x - reach.x), x1: Math.min(this.slide.width, middle.x + reach.x),
      y0: Math.max(0, middle.y - reach.y), y1: Math.min(this.slide.height, middle.y + reach.y),
    };
    return { matrix, scale, ratio, middle, bounds };
  }

  ratio() {
    return Math.min(2, window.devicePixelRatio || 1);
  }

  /** Return the tiles that a view touches, and how many cells they have. */
  tilesIn({ x0, y0, x1, y1 }) {
    const { tiles, tileSide } = this.cells;
    const found = [];
    let count = 0;
    for (let n = 0; n < tiles.length; n += 4) {
      const left = tiles[n] * tileSide;
      const top = tiles[n + 1] * tileSide;
      if (left < x1 && left + tileSide > x0 && top < y1 && top + tileSide > y0) {
        found.push([tiles[n], tiles[n + 1], tiles[n + 2], tiles[n + 3]]);
        count += tiles[n + 3] - tiles[n + 2];
      }
    }
    return { found, count };
  }

  isFar(view) {
    return this.map !== "points" && this.tilesIn(view.bounds).count > MOST_POINTS;
  }

  /** Return what squares the view needs: none if cells are drawn one by one. */
  wanted() {
    const view = this.cells && this.view();
    if (!view || !this.isFar(view)) return { area: null, shift: 0 };
    const side = this.cells.tileSide;
    const least = Math.ceil(Math.log2((LEAST_SQUARE * view.ratio) / view.scale));
    const shift = Math.min(Math.log2(side), Math.max(2, least));
    const down = (value) => Math.floor(value / side) * side;
    const up = (value) => Math.ceil(value / side) * side;
    const { x0, y0, x1, y1 } = view.bounds;
    return { area: { x0: down(x0), y0: down(y0), x1: up(x1), y1: up(y1) }, shift };
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = null;
      this.paint();
    });
  }

  paint() {
    const view = this.view();
    if (!view) return;
    const { clientWidth, clientHeight } = this.canvases[1]; // never hidden
    for (const canvas of this.canvases) {
      const [width, height] = [Math.round(clientWidth * view.ratio), Math.round(clientHeight * view.ratio)];
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    }
    const { context } = this;
    const [{ width, height }] = this.canvases;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    const { a, b, c, d } = view.matrix;
    const place = () =>
      context.setTransform(a, b, c, d, width / 2 - a * view.middle.x - c * view.middle.y, height / 2 - b * view.middle.x - d * view.middle.y);
    this.how = "none";
    if (this.cells && this.limits && this.shown) {
      if (this.isFar(view)) {
        this.how = "squares";
        this.paintSquares(view, place);
      } else if (2 * Math.sqrt(this.usualArea / Math.PI) * view.scale >= OUTLINES_FROM * view.ratio && this.haveOutlines(view)) {
        this.how = "outlines";
        this.paintOutlines(view, place);
      } else {
        this.how = "points";
        this.points.draw(this.tilesIn(view.bounds).found, view, this.limits, this.byStrength);
      }
    }
    this.canvases[0].hidden = this.how !== "points"; // an empty layer costs as much as a full one
    for (const extra of this.extras) {
      place();
      extra(context, view);
    }
  }

  paintSquares(view, place) {
    const wanted = this.wanted();
    const have = this.squares;
    if (!have || have.shift !== wanted.shift || have.x0 > wanted.area.x0 || have.y0 > wanted.area.y0 ||
        have.x1 < wanted.area.x1 || have.y1 < wanted.area.y1) {
      this.count();
    }
    if (!have) return;
    place();
    const { context } = this;
    const side = 2 ** have.shift;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.imageOf(have, side), have.x0, have.y0, have.columns * side, have.rows * side);
  }

  /** Return squares as a picture with a pixel for each: drawing it is one call. */
  imageOf(squares, side) {
    if (squares.image?.map === this.map) return squares.image.canvas;
    const mm2 = ((side * this.slide.mpp) / 1000) ** 2;
    this.mapEnd = this.map === "density" ? niceEnd(squares.positive, mm2) : 100;
    const canvas = new OffscreenCanvas(squares.columns, squares.rows);
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(squares.columns, squares.rows);
    for (let n = 0; n < squares.called.length; n += 1) {
      const called = squares.called[n];
      if (!called) continue;
      const share = this.map === "density" ? squares.positive[n] / mm2 / this.mapEnd : squares.positive[n] / called;
      const colour = this.about.heat[Math.min(255, Math.round(255 * share))];
      pixels.data.set([...colour, called >= FEW ? 190 : 90], 4 * n);
    }
    context.putImageData(pixels, 0, 0);
    squares.image = { map: this.map, canvas };
    return canvas;
  }

  /** Tell whether all outlines in sight are there; ask for those that are not. */
  haveOutlines(view) {
    const { x0, y0, x1, y1 } = view.bounds;
    let all = true;
    for (let y = Math.floor(y0 / OUTLINE_TILE); y * OUTLINE_TILE < y1; y += 1) {
      for (let x = Math.floor(x0 / OUTLINE_TILE); x * OUTLINE_TILE < x1; x += 1) {
        const there = this.outlines.get(`${x}/${y}`);
        if (there === undefined) this.fetchOutlines(x, y);
        all &&= Array.isArray(there);
      }
    }
    return all;
  }

  async fetchOutlines(x, y) {
    const key = `${x}/${y}`;
    const { outlines } = this;
    outlines.set(key, null);
    const area = { x0: x * OUTLINE_TILE, y0: y * OUTLINE_TILE, x1: (x + 1) * OUTLINE_TILE, y1: (y + 1) * OUTLINE_TILE };
    try {
      const answer = await get("/api/outlines", { slide: this.slide.slide_id, ...this.asked, ...area });
      if (!outlines.has(key)) return; // cells were loaded anew meanwhile
      outlines.set(key, answer.too_many ? false : answer.cells.map(prepared));
      for (const old of outlines.keys()) {
        if (outlines.size <= KEPT_TILES) break;
        outlines.delete(old);
      }
    } catch {
      outlines.set(key, false); // points stay
    }
    this.draw();
  }

  paintOutlines(view, place) {
    place();
    const { context } = this;
    const { x0, y0, x1, y1 } = view.bounds;
    const groups = new Map();
    const struck = new Path2D();
    for (let y = Math.floor(y0 / OUTLINE_TILE); y * OUTLINE_TILE < y1; y += 1) {
      for (let x = Math.floor(x0 / OUTLINE_TILE); x * OUTLINE_TILE < x1; x += 1) {
        for (const cell of this.outlines.get(`${x}/${y}`) || []) {
          const call = callOf(this.limits, cell.area, cell.od, cell.dab, cell.marker, cell.flags);
          if (call < 0) {
            if (((cell.flags >> 1) & 3) === 3) struck.addPath(cell.path);
            continue;
          }
          const colour = this.byStrength ? this.about.strengths[call & 3] : call >> 2 ? this.about.positive : this.about.negative;
          const key = String(colour);
          if (!groups.has(key)) groups.set(key, { all: new Path2D(), said: new Path2D() });
          groups.get(key)[((cell.flags >> 1) & 3) > 0 ? "said" : "all"].addPath(cell.path);
        }
      }
    }
    for (const [colour, { all, said }] of groups) {
      context.strokeStyle = `rgb(${colour})`;
      context.lineWidth = (1.6 * view.ratio) / view.scale;
      context.stroke(all);
      context.lineWidth = (3.2 * view.ratio) / view.scale; // a person said so
      context.stroke(said);
    }
    context.strokeStyle = "rgb(70,70,70)";
    context.lineWidth = (1.6 * view.ratio) / view.scale;
    context.setLineDash([(4 * view.ratio) / view.scale, (3 * view.ratio) / view.scale]);
    context.stroke(struck);
    context.setLineDash([]);
  }

  close() {
    cancelAnimationFrame(this.drawing);
  }
}

function prepared([id, area, od, dab, marker, flags, outline]) {
  const path = new Path2D();
  path.moveTo(outline[0], outline[1]);
  for (let n = 2; n < outline.length; n += 2) path.lineTo(outline[n], outline[n + 1]);
  path.closePath();
  return { id, area, od, dab, marker, flags, path };
}

function niceEnd(positive, mm2) {
  let most = 0;
  for (const count of positive) if (count > most) most = count;
  const value = Math.max(1, most / mm2);
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((end) => end >= value);
}

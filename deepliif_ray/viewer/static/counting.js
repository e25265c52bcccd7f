// A worker that has all cells of a slide and counts them at any cut-off: for the index, and for squares of the picture.
//
// The first count looks at every cell. When a cut-off moves after that, only cells whose measurement lies between
// its old and its new place can be called differently: they are found by an index and counted anew, no others.

import { bytes } from "./api.js";
import { callOf, MAX_AREA } from "./calls.js";
import { unpack } from "./packed.js";

const SAMPLE = 200_000; // cells that the sketches behind sliders are made of
const FIRST = 4096; // cells that tell the usual size
const BINS = 64;
const MEASURES = {
  area: (limits) => [limits.below + 1, limits.above],
  od: (limits) => [limits.odLow, limits.odHigh + 1],
  marker: (limits) => [limits.marker + 1],
  dab: (limits) => limits.steps,
};

let cells = null;
let tileOf = null; // of each cell
let sorted = {}; // of each measurement: cells by their value
let now = null; // limits, counts, squares

/** Return cells by the value of a measurement, and where each value begins. */
function sortedBy(name) {
  if (sorted[name]) return sorted[name];
  const values = cells[name];
  const begin = new Uint32Array(65537);
  for (let i = 0; i < values.length; i += 1) begin[values[i] + 1] += 1;
  for (let value = 0; value < 65536; value += 1) begin[value + 1] += begin[value];
  const place = begin.slice();
  const order = new Uint32Array(values.length);
  for (let i = 0; i < values.length; i += 1) order[place[values[i]]++] = i;
  sorted[name] = { order, begin };
  return sorted[name];
}

const callAt = (limits, i) =>
  callOf(limits, cells.area[i], cells.od[i], cells.dab[i], cells.marker[i], cells.flags[i]);

/** Return squares of 2^shift level-0 px of a rectangle of tiles, all empty. */
function emptySquares(area, shift) {
  const columns = Math.max(1, (area.x1 - area.x0) >> shift);
  const rows = Math.max(1, (area.y1 - area.y0) >> shift);
  return { ...area, shift, columns, rows, called: new Uint32Array(columns * rows), positive: new Uint32Array(columns * rows) };
}

/** Return tables that answer for each value of a measurement what the limits say: looking up is quickest. */
function tablesOf(limits) {
  const table = (length, rule) => {
    const answers = new Uint8Array(length);
    for (let value = 0; value < length; value += 1) answers[value] = Number(rule(value));
    return answers;
  };
  const [weak, moderate, strong] = limits.steps;
  return {
    sized: table(65536, (area) => area > limits.below && area < limits.above),
    dense: table(65536, (od) => od >= limits.odLow && od <= limits.odHigh),
    strength: table(65536, (dab) => (dab >= weak) + (dab >= moderate) + (dab >= strong)),
    // By flags and value of the marker.
    major: table(16 * 256, (both) => (both & 256) !== 0 || ((both & 2048) !== 0 && (both & 255) > limits.marker)),
  };
}

/** Count every cell into `counts` (if it is given), and those of its tiles into squares. */
function countAll(limits, counts, squares) {
  const { sized, dense, strength, major } = tablesOf(limits);
  const { tiles, x, y, area, od, dab, marker, flags, tileSide, part } = cells;
  const bits = Math.log2(part);
  for (let n = 0; n < tiles.length; n += 4) {
    const left = tiles[n] * tileSide;
    const top = tiles[n + 1] * tileSide;
    const inside = squares !== null && left >= squares.x0 && left < squares.x1 && top >= squares.y0 && top < squares.y1;
    if (!inside && !counts) continue;
    const last = tiles[n + 3];
    for (let i = tiles[n + 2]; i < last; i += 1) {
      const flag = flags[i];
      let call;
      if ((flag & 6) !== 0) {
        call = callAt(limits, i);
        if (call < 0) continue;
      } else {
        if (sized[area[i]] === 0) continue;
        call = strength[dab[i]] | ((dense[od[i]] & major[(flag << 8) | marker[i]]) << 2);
      }
      if (counts) counts[call] += 1;
      if (inside) {
        const at = ((top - squares.y0 + (y[i] >> bits)) >> squares.shift) * squares.columns +
          ((left - squares.x0 + (x[i] >> bits)) >> squares.shift);
        squares.called[at] += 1;
        squares.positive[at] += call >> 2;
      }
    }
  }
}

/** Return the cells that other limits may call differently, as ranges of an order; null if these are too many. */
function changed(from, to) {
  const ranges = [];
  let count = 0;
  for (const [name, edgesOf] of Object.entries(MEASURES)) {
    const edges = [edgesOf(from), edgesOf(to)].map((all) => all.map((edge) => Math.min(65536, Math.max(0, Math.ceil(edge)))));
    edges[0].forEach((edge, n) => {
      const [low, high] = [Math.min(edge, edges[1][n]), Math.max(edge, edges[1][n])];
      if (low === high) return;
      const { order, begin } = sortedBy(name);
      ranges.push(order.subarray(begin[low], begin[high]));
      count += begin[high] - begin[low];
    });
  }
  return ranges.length < 2 && count < cells.count / 8 ? ranges : null;
}

/** Count the cells of ranges as other limits call them. */
function recount(ranges, from, to, { counts, squares }) {
  const { tiles, x, y, tileSide, part } = cells;
  const bits = Math.log2(part);
  for (const range of ranges) {
    for (const i of range) {
      const before = callAt(from, i);
      const after = callAt(to, i);
      if (before === after) continue;
      if (before >= 0) counts[before] -= 1;
      if (after >= 0) counts[after] += 1;
      if (!squares) continue;
      const tile = 4 * tileOf[i];
      const px = tiles[tile] * tileSide + (x[i] >> bits);
      const py = tiles[tile + 1] * tileSide + (y[i] >> bits);
      if (px < squares.x0 || px >= squares.x1 || py < squares.y0 || py >= squares.y1) continue;
      const at = ((py - squares.y0) >> squares.shift) * squares.columns + ((px - squares.x0) >> squares.shift);
      squares.called[at] += (after >= 0) - (before >= 0);
      squares.positive[at] += (after >= 4) - (before >= 4);
    }
  }
}

const isSame = (squares, area, shift) =>
  squares !== null && area !== null && squares.shift === shift && squares.x0 === area.x0 && squares.x1 === area.x1 &&
  squares.y0 === area.y0 && squares.y1 === area.y1;

/** Count with new limits, in squares of an area if there is one. */
function count({ limits, area, shift }) {
  const keeps = area === null ? now?.squares === null : now && isSame(now.squares, area, shift);
  const ranges = now && keeps ? changed(now.limits, limits) : null;
  if (ranges) {
    recount(ranges, now.limits, limits, now);
    now.limits = limits;
  } else {
    const isKnown = now && JSON.stringify(now.limits) === JSON.stringify(limits);
    const counts = isKnown ? now.counts : new Uint32Array(8);
    const squares = area ? emptySquares(area, shift) : null;
    countAll(limits, isKnown ? null : counts, squares);
    now = { limits, counts, squares };
  }
  const { counts } = now; // by strength, those of positive cells after the others
  const strengths = [0, 1, 2, 3].map((n) => counts[n] + counts[n + 4]);
  const sum = (values) => values.reduce((all, value) => all + value, 0);
  return { totals: { called: sum(strengths), positive: sum([...counts.slice(4)]), strengths }, squares: now.squares };
}

/** Return how often values of a measurement occur among a sample of cells, in bins from 0 to `end`. */
function spread(name, end) {
  const counts = new Array(BINS).fill(0);
  const values = cells[name];
  const offset = name === "dab" ? 1 : 0;
  const step = Math.max(1, Math.floor(values.length / SAMPLE));
  for (let i = 0; i < values.length; i += step) {
    const bin = Math.floor(((values[i] - offset) * BINS) / end);
    if (bin < BINS) counts[Math.max(0, bin)] += 1;
  }
  return counts;
}

function load(buffer) {
  cells = unpack(buffer);
  const { tiles } = cells;
  tileOf = new Uint32Array(cells.count);
  for (let n = 0; n < tiles.length; n += 4) tileOf.fill(n / 4, tiles[n + 2], tiles[n + 3]);
  sorted = {};
  now = null;
}

/** Return the area of a usual cell, and where sliders of areas may end. */
function sizes() {
  const areas = cells.area.slice(0, FIRST).sort();
  const large = areas[Math.floor(areas.length * 0.9)] ?? 100;
  return { usualArea: areas[areas.length >> 1] ?? 100, areaEnd: Math.min(MAX_AREA, 4 * Math.max(50, large)) };
}

let newest = 0; // of what was asked to be fetched

async function fetchCells({ number, query }) {
  newest = number;
  const buffer = await bytes("/api/cells", query);
  if (number !== newest) return postMessage({ number, isOld: true });
  load(buffer);
  const { usualArea, areaEnd } = sizes();
  const spreads = { size: spread("area", areaEnd), marker: spread("marker", 256), od: spread("od", 400), dab: spread("dab", 1500) };
  const copy = buffer.slice(0);
  postMessage({ number, buffer: copy, usualArea, areaEnd, spreads }, [copy]);
}

addEventListener("message", ({ data }) => {
  if (data.do === "load") {
    fetchCells(data).catch((error) => postMessage({ number: data.number, error: error.message }));
  } else {
    const began = performance.now();
    const answer = count(data);
    postMessage({ number: data.number, ...answer, ms: performance.now() - began });
  }
});

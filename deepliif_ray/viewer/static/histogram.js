// A histogram whose range is chosen with a pointer, or with two fields.

import { el, svg } from "./dom.js";

const BINS = 40;

/** Return a histogram of values from 0 to `end`; `changed` hears of the chosen range, or null. */
export function rangeHistogram(title, end, changed) {
  let range = null;
  const drawing = svg("svg", { viewBox: "0 0 400 62", preserveAspectRatio: "none", "aria-hidden": "true" });
  const field = (what, n) =>
    el("input", {
      type: "number", min: 0, max: end, step: "any", "aria-label": `${title}: ${what}`, placeholder: what,
      onchange: (event) => {
        const value = event.target.value === "" ? null : Number(event.target.value);
        const next = range ? [...range] : [0, end];
        next[n] = value ?? (n ? end : 0);
        choose(next);
      },
    });
  const ends = [field("from", 0), field("to", 1)];
  const count = el("span", { class: "quiet" });
  const clear = el("button", { type: "button", onclick: () => choose(null), "aria-label": `${title}: all` }, "All");
  const element = el(
    "div", { class: "histogram", role: "group", "aria-label": title },
    el("div", { class: "heading" }, el("strong", {}, title), count),
    drawing,
    el("div", { class: "ends" }, ends[0], "–", ends[1], "%", clear),
  );
  let bins = [[], []];

  function choose(next, quiet = false) {
    range = next && (next[0] > 0 || next[1] < end) ? [Math.min(...next), Math.max(...next)] : null;
    ends[0].value = range ? +range[0].toFixed(2) : "";
    ends[1].value = range ? +range[1].toFixed(2) : "";
    draw();
    if (!quiet) changed(range);
  }

  function draw() {
    const most = Math.max(1, ...bins[0]);
    const bar = (n, height, kind) =>
      svg("rect", { class: kind, x: n * 10 + 0.5, width: 9, y: 60 - height, height });
    const inside = (n) => !range || ((n + 1) * (end / BINS) > range[0] && n * (end / BINS) < range[1]);
    const shapes = [];
    for (let n = 0; n < BINS; n += 1) {
      shapes.push(bar(n, (58 * (bins[0][n] ?? 0)) / most, "off"));
      if (inside(n)) shapes.push(bar(n, (58 * (bins[1][n] ?? 0)) / most, "on"));
    }
    for (const edge of range ?? []) {
      shapes.push(svg("line", { class: "edge", x1: (400 * edge) / end, x2: (400 * edge) / end, y1: 0, y2: 62 }));
    }
    drawing.replaceChildren(...shapes);
  }

  let from = null;
  const at = (event) => {
    const box = drawing.getBoundingClientRect();
    return Math.min(end, Math.max(0, (end * (event.clientX - box.left)) / box.width));
  };
  drawing.addEventListener("pointerdown", (event) => {
    from = at(event);
    drawing.setPointerCapture(event.pointerId);
  });
  drawing.addEventListener("pointermove", (event) => {
    if (from !== null) choose([from, at(event)]);
  });
  drawing.addEventListener("pointerup", (event) => {
    if (from !== null && Math.abs(at(event) - from) < end / 200) choose(null);
    from = null;
  });

  return {
    element,
    get range() {
      return range;
    },
    /** Show all values behind those that other filters leave. */
    set(all, left) {
      bins = [all, left].map((values) => {
        const counts = new Array(BINS).fill(0);
        for (const value of values) counts[Math.min(BINS - 1, Math.floor((BINS * value) / end))] += 1;
        return counts;
      });
      count.textContent = `${left.length.toLocaleString("en")} of ${all.length.toLocaleString("en")}`;
      draw();
    },
  };
}

/** Return a small histogram behind a slider. */
export function sketch(counts) {
  const most = Math.max(1, ...counts);
  let path = "M0 26";
  counts.forEach((count, n) => {
    const y = (26 - (25 * Math.sqrt(count)) / Math.sqrt(most)).toFixed(2);
    path += `L${((100 * n) / counts.length).toFixed(2)} ${y}L${((100 * (n + 1)) / counts.length).toFixed(2)} ${y}`;
  });
  const shape = svg("path", { d: `${path}L100 26Z` });
  return svg("svg", { viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true" }, shape);
}

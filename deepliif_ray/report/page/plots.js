"use strict";
// Plots, each drawn when it is about to come into sight, and all of them before the page is printed.

const STEPS = 5;
/** Colour of a range of the index: of several, spread from light to dark. */
const shade = (at, of) => `var(--cat-${of < 2 ? 2 : Math.round((at * (STEPS - 1)) / (of - 1))})`;
for (const swatch of document.querySelectorAll("[data-swatch]")) {
  const [at, of] = swatch.dataset.swatch.split("/").map(Number);
  swatch.style.background = shade(at, of);
}

const PERCENT = { domain: [0, 100], label: "Index, % of counted cells" };
const counted = (most) => ({ label: null, grid: true, ticks: Math.min(5, most), tickFormat: "d" });

/** A plot whose axis of y has its title above it, and which says what it is to who cannot see it. */
function plot(alt, options) {
  return Plot.plot({
    marginLeft: 48, marginBottom: 38, marginTop: 26, ariaLabel: alt, style: { background: "none", fontSize: "11px" }, ...options,
  });
}

const title = (text) => Plot.text([text], { frameAnchor: "top-left", dx: -44, dy: -20, fill: "var(--soft)", textAnchor: "start" });
const grey = "var(--soft)";

const shorten = (text, most = 20) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** Inner ends of named ranges. */
const edgesOf = (summary) => summary.categories.map((category) => category.to_percent).filter((end) => end !== null);

function distribution(summary) {
  const width = data.bin_percent;
  const bars = summary.bins.map((n, at) => ({ n, from: at * width, to: (at + 1) * width })).filter((bar) => bar.n);
  const most = Math.max(...summary.bins);
  return plot(`Patients by index of ${summary.name}, in steps of ${width} percent`, {
    width: 400, height: 250, x: PERCENT, y: { ...counted(most), domain: [0, most], nice: true },
    marks: [
      title("Patients"),
      Plot.rectY(bars, {
        x1: "from", x2: "to", y: "n", fill: "var(--bar)", insetLeft: 0.5, insetRight: 0.5,
        title: (bar) => `${bar.from} – ${bar.to} %: ${bar.n}`, tip: { fill: "var(--bg)" },
      }),
      Plot.ruleX(edgesOf(summary), { stroke: grey, strokeDasharray: "3 3" }),
      Plot.ruleY([0]),
    ],
  });
}

const FEW = 150;
const NAMED = 8;

function waterfall(summary) {
  const marker = data.markers.indexOf(summary.name);
  const { patient, index_percent, ci_lower_percent, ci_upper_percent, category, flags } = data.indices;
  const names = summary.categories.map(({ name }) => name);
  const rows = [];
  data.indices.marker.forEach((of, at) => {
    if (of !== marker || index_percent[at] === null) return;
    rows.push({
      patient: data.patients[patient[at]], index: index_percent[at], low: ci_lower_percent[at], high: ci_upper_percent[at],
      flags: flags[at].map((flag) => data.flags[flag]),
      colour: names.length ? shade(names.indexOf(category[at]), names.length) : "var(--bar)",
    });
  });
  rows.sort((a, b) => b.index - a.index || collator.compare(a.patient, b.patient));
  rows.forEach((row, at) => { row.from = at; row.to = at + 1; row.middle = at + 0.5; });
  const told = (row) => `${row.patient}\n${fixed(row.index)} %` +
    (row.low === null ? ", no interval" : ` (${fixed(row.low)} – ${fixed(row.high)})`) +
    row.flags.map((flag) => `\n⚑ ${flag}`).join("");
  const bare = rows.filter((row) => row.low === null).length;
  const said = document.querySelector(`[data-without-interval="${data.summaries.indexOf(summary)}"]`);
  if (said && bare) said.textContent = ` ${whole(bare)} without an interval, which takes more than one block of tissue.`;
  const few = rows.length <= FEW;
  const room = 560 / rows.length;
  const inset = few ? Math.max(room - 34, Math.min(3, room / 5)) : 0;
  const ends = rows.filter((row) => row.low !== null);
  // Of many patients intervals are a band, with a step for each, as lines would hide the bars.
  const intervals = few
    ? [["var(--bg)", Math.min(3.4, room / 4)], ["var(--ink)", 1.2]].map(([stroke, strokeWidth]) =>
      Plot.ruleX(ends, { x: "middle", y1: "low", y2: "high", stroke, strokeWidth }))
    : [Plot.areaY(rows, { x: "middle", y1: "low", y2: "high", curve: "step", fill: "var(--ink)", fillOpacity: 0.38 })];
  const bars = few
    ? [Plot.rectY(rows, { x1: "from", x2: "to", y: "index", fill: "colour", insetLeft: inset / 2, insetRight: inset / 2 })]
    : Array.from(new Set(rows.map((row) => row.colour)), (colour) => {
      const its = rows.filter((row) => row.colour === colour);
      const steps = its.flatMap((row) => [{ x: row.from, y: row.index }, { x: row.to, y: row.index }]);
      return Plot.areaY(steps, { x: "x", y1: 0, y2: "y", fill: colour });
    });
  return plot(`Patients in order of their index of ${summary.name}, with 95 percent intervals`, {
    width: 640, height: 250, color: { type: "identity" },
    x: {
      domain: [0, rows.length], label: "Patients, highest index first",
      ...(rows.length <= NAMED
        ? { ticks: rows.map((row) => row.middle), tickFormat: (at) => shorten(rows[Math.floor(at)].patient, 9), tickSize: 0 }
        : { ticks: 6, tickFormat: "d" }),
    },
    y: { domain: [0, 100], label: null, grid: true, ticks: 5 },
    marks: [
      title("Index, % of counted cells"),
      ...bars,
      ...intervals,
      Plot.ruleX(rows.filter((row) => row.flags.length), {
        x: "middle", y1: 96, y2: 100, stroke: "var(--alarm)", strokeWidth: few ? 3 : 0.6,
      }),
      Plot.ruleY(edgesOf(summary), { stroke: grey, strokeDasharray: "3 3" }),
      Plot.ruleY([0]),
      Plot.tip(rows, Plot.pointerX({ x: "middle", y: "index", title: told, fill: "var(--bg)" })),
    ],
  });
}

/** Markers and patients whose index has flags. */
const doubtful = new Set(data.indices.flags.flatMap((flags, at) =>
  (flags.length ? [`${data.markers[data.indices.marker[at]]}\n${data.patients[data.indices.patient[at]]}`] : [])));
const isDoubtful = (found) => (pair) => doubtful.has(`${found.marker}\n${pair.name}`);

function agreementOf(found) {
  const flaggedPair = isDoubtful(found);
  const rows = found.pairs.map((pair) => ({ ...pair, mean: (pair.first + pair.second) / 2, less: pair.first - pair.second }));
  const reach = Math.max(1, ...rows.map((row) => Math.abs(row.less)), Math.abs(found.limit_lower_percent ?? 0), Math.abs(found.limit_upper_percent ?? 0)) * 1.1;
  const limits = [found.limit_lower_percent, found.limit_upper_percent].filter((value) => value !== null);
  return plot(`Difference of two slides of a patient by their mean, ${found.marker}`, {
    width: 400, height: 260, color: { type: "identity" }, x: { ...PERCENT, label: "Mean of both slides, %" },
    y: { domain: [-reach, reach], label: null, grid: true, ticks: 5 },
    marks: [
      title("First less second slide, points"),
      Plot.ruleY([0], { stroke: grey }),
      Plot.ruleY(limits, { stroke: "var(--ink)", strokeDasharray: "4 3" }),
      found.bias_percent === null ? null : Plot.ruleY([found.bias_percent], { stroke: "var(--ink)" }),
      Plot.dot(rows, {
        x: "mean", y: "less", r: rows.length > 200 ? 1.6 : 3, fillOpacity: 0.8,
        fill: (row) => (flaggedPair(row) ? "var(--alarm)" : "var(--bar)"),
        title: (row) => `${row.name}\n${fixed(row.first)} and ${fixed(row.second)} %`, tip: { fill: "var(--bg)" },
      }),
    ],
  });
}

function drift(rows, unit, alt, facets) {
  const groups = data.drift.values.filter((value) => rows.some((row) => row.value === value));
  const marginLeft = 14 + 6.2 * Math.max(...groups.map((value) => shorten(value).length));
  const fy = facets ? { domain: facets, label: null, axis: "right" } : undefined;
  const of = facets ? { fy: "marker" } : {};
  const [least, most] = [Math.min(...rows.map((row) => row.least)), Math.max(...rows.map((row) => row.most))];
  // Where all values are one, there is no scale to take from them.
  const around = Math.abs(least) * 0.1 || 1;
  const domain = least === most ? [least - around, least + around] : [least, most];
  return plot(alt, {
    width: facets ? 760 : 400, height: (facets ? facets.length : 1) * (groups.length * 22 + 10) + 50, marginLeft, marginTop: 8,
    marginRight: facets ? 90 : 44, fy,
    x: { label: unit, domain, nice: true, grid: true, ticks: 5 },
    y: { type: "band", domain: groups, label: null, tickFormat: (text) => shorten(text), padding: 0.3 },
    marks: [
      Plot.ruleY(rows, { y: "value", x1: "least", x2: "most", stroke: grey, ...of }),
      Plot.barX(rows, { y: "value", x1: "q1", x2: "q3", fill: "var(--bar)", ...of }),
      Plot.tickX(rows, { y: "value", x: "median", stroke: "var(--median)", strokeWidth: 2.5, ...of }),
      Plot.text(rows, {
        y: "value", x: "most", text: (row) => `n ${whole(row.n)}`, textAnchor: "start", dx: 6, fill: grey, ...of,
      }),
    ],
  });
}

/** Where figures are still to be drawn, in the order of the page, and what draws them. */
const waiting = new Map();
function later(place, draw) {
  waiting.set(place, draw);
}

function multiple(place, heading, caption, draw, wide = false) {
  const area = make("div", { class: "plot" });
  place.append(make("figure", { class: wide ? "wide" : null },
    make("h4", {}, heading), area, make("figcaption", {}, caption)));
  later(area, draw);
}

for (const place of document.querySelectorAll("[data-plot]")) {
  const summary = data.summaries[place.dataset.marker];
  later(place, () => (place.dataset.plot === "waterfall" ? waterfall(summary) : distribution(summary)));
}

const agreementPlots = document.getElementById("agreement-plots");
for (const found of agreementPlots ? data.agreement : []) {
  const limits = found.bias_percent === null ? "" : " Solid: their mean; dashed: 95 % limits of agreement.";
  const marked = found.pairs.filter(isDoubtful(found)).length;
  const said = marked ? `, ${whole(marked)} with flags in another colour` : "";
  multiple(agreementPlots, found.marker, `${whole(found.n)} patient${found.n === 1 ? "" : "s"}${said}.${limits}`, () => agreementOf(found));
}

const driftPlots = document.getElementById("drift-plots");
const MOST_BOXES = 120;
const byMarker = new Set(data.drift.rows.filter((row) => row.marker !== null).map((row) => row.measure));
const measures = Object.entries(data.drift.measures).sort(([a], [b]) => byMarker.has(a) - byMarker.has(b));
for (const [name, { title: heading, unit }] of driftPlots ? measures : []) {
  const all = data.drift.rows.filter((row) => row.measure === name);
  const rows = all.filter((row) => row.n > 0);
  if (!rows.length) continue;
  const sum = (key) => all.reduce((total, row) => total + row[key], 0);
  const lacking = sum("n_slides") - sum("n");
  const facets = byMarker.has(name) ? [...new Set(rows.map((row) => row.marker))] : null;
  if (facets && rows.length > MOST_BOXES) continue;
  multiple(driftPlots, facets ? `${heading}, by marker` : heading,
    `${whole(sum("n"))} slide${sum("n") === 1 ? "" : "s"}${lacking ? `; ${whole(lacking)} not measured` : ""}.`,
    () => drift(rows, unit, `${heading} by ${data.drift.by}`, facets), Boolean(facets));
}

function drawAt(place) {
  const draw = waiting.get(place);
  if (!draw) return;
  waiting.delete(place);
  place.append(draw());
}

// All plots of a large cohort take seconds, so only those near the part that is looked at are drawn.
const AHEAD = "600px 0px";
const near = [];

/** Draw what is near, one after another, so that the page answers meanwhile. */
function drawNext() {
  if (near.length) {
    drawAt(near.shift());
    setTimeout(drawNext);
  } else if (!document.documentElement.dataset.drawn) {
    performance.mark("drawn");
    document.documentElement.dataset.drawn = "true";
  }
}

const watch = new IntersectionObserver((seen) => {
  const idle = !near.length;
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    watch.unobserve(target);
    near.push(target);
  }
  if (idle) drawNext();
}, { rootMargin: AHEAD });
addEventListener("beforeprint", () => { for (const place of [...waiting.keys()]) drawAt(place); });
requestAnimationFrame(() => setTimeout(() => {
  if (!waiting.size) drawNext();
  for (const place of waiting.keys()) watch.observe(place);
}));

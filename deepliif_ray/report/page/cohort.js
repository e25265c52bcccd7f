"use strict";
// The long tables of a cohort: patients and markers, slides with flags, failures.

/** Rows of what is embedded by column. */
function rowsOf(columns) {
  const names = Object.keys(columns);
  return columns[names[0]].map((_, at) => Object.fromEntries(names.map((name) => [name, columns[name][at]])));
}

/** Fill the cell of a patient and a marker. */
function fillIndex(index, cell) {
  if (!index) {
    cell.append(make("span", { class: "none", "aria-label": "no slide" }, "–"));
    return;
  }
  if (index.index_percent === null) {
    cell.append(make("span", { class: "unknown" }, "unknown"), make("span", { class: "interval" }, index.unknown));
  } else {
    cell.classList.add("known");
    cell.style.setProperty("--share", index.index_percent);
    cell.append(make("span", { class: "value" }, fixed(index.index_percent)));
    const interval = index.ci_lower_percent === null
      ? "no interval"
      : `${fixed(index.ci_lower_percent)} – ${fixed(index.ci_upper_percent)}`;
    cell.append(make("span", { class: "interval" }, interval));
  }
  cell.append(...index.flags.map((at) => flagged(data.flags[at])));
}

function drawMatrix(place) {
  const rows = data.patients.map((patient) => ({ patient, of: new Array(data.markers.length).fill(null) }));
  for (const index of rowsOf(data.indices)) rows[index.patient].of[index.marker] = index;
  const some = (holds) => (row) => row.of.some((index) => index && holds(index));
  const choices = [
    { label: "all", holds: null },
    { label: "with a flag", holds: some((index) => index.flags.length > 0) },
    { label: "with an unknown index", holds: some((index) => index.index_percent === null) },
  ];
  const ranges = [{ label: "all", holds: null }];
  data.summaries.forEach(({ name, categories }) => {
    const marker = data.markers.indexOf(name);
    for (const category of categories) {
      ranges.push({
        label: `${name}: ${category.name.replaceAll("_", " ")}`,
        holds: (row) => row.of[marker] !== null && row.of[marker].category === category.name,
      });
    }
  });
  longTable(place, {
    caption: "Patients and markers: index in percent, 95 % interval, flags",
    what: rows.length === 1 ? "patient" : "patients",
    kind: "matrix",
    rows,
    text: (row) => row.patient,
    search: "Find a patient",
    filters: [{ label: "Show patients", choices }].concat(ranges.length > 1 ? { label: "Range of the index", choices: ranges } : []),
    columns: [
      { label: "Patient", value: (row) => row.patient, fill: (row, cell) => cell.append(row.patient) },
      ...data.markers.map((name, at) => ({
        label: name,
        numeric: true,
        value: (row) => (row.of[at] ? row.of[at].index_percent : null),
        fill: (row, cell) => fillIndex(row.of[at], cell),
      })),
    ],
  });
}

const plain = (label, name, kind = "") => ({
  label,
  value: (row) => row[name],
  fill: (row, cell) => {
    cell.className = kind;
    cell.append(row[name] === null ? "unknown" : row[name]);
  },
});

function choicesOf(names) {
  const all = { label: "all", holds: null };
  return (rows) => [all, ...[...new Set(rows.flatMap(names))].sort().map((name) => ({
    label: name, holds: (row) => names(row).includes(name),
  }))];
}

function drawFlagged(place) {
  const rows = rowsOf(data.flagged);
  longTable(place, {
    caption: "Slides with flags",
    what: rows.length === 1 ? "slide" : "slides",
    rows,
    text: (row) => [row.slide_id, row.patient_id, row.marker].join("\n"),
    search: "Find a slide or patient",
    filters: [{ label: "Flag", choices: choicesOf((row) => row.flags)(rows) }],
    columns: [
      plain("Slide", "slide_id", "id"), plain("Patient", "patient_id", "id"), plain("Marker", "marker"),
      {
        label: "Index, %", numeric: true, value: (row) => row.index_percent,
        fill: (row, cell) => {
          if (row.index_percent === null) cell.classList.add("unknown");
          cell.append(fixed(row.index_percent));
        },
      },
      { label: "Cells", numeric: true, value: (row) => row.n_called, fill: (row, cell) => cell.append(whole(row.n_called)) },
      {
        label: "Flags and warnings", value: (row) => row.flags.join(" "),
        fill: (row, cell) => {
          row.flags.forEach((name) => cell.append(flagged(name), " "));
          if (row.unknown) cell.append(make("div", { class: "unknown" }, `index unknown: ${row.unknown}`));
          row.warnings.forEach((warning) => cell.append(make("div", { class: "unit" }, warning)));
        },
      },
    ],
  });
}

function drawFailures(place) {
  const rows = rowsOf(data.failures);
  longTable(place, {
    caption: "Slides that failed",
    what: rows.length === 1 ? "slide" : "slides",
    rows,
    text: (row) => [row.slide_id, row.patient_id, row.marker, row.message].join("\n"),
    search: "Find a slide, patient or message",
    filters: [{ label: "Reason", choices: choicesOf((row) => [row.reason])(rows) }],
    columns: [
      plain("Slide", "slide_id", "id"), plain("Patient", "patient_id", "id"), plain("Marker", "marker"),
      plain("Step", "stage"), plain("Reason", "reason"), plain("What happened", "message", "id"),
    ],
  });
}

for (const [id, draw] of [["matrix", drawMatrix], ["flagged", drawFlagged], ["failures", drawFailures]]) {
  const place = document.getElementById(id);
  if (place) draw(place);
}
performance.mark("tables");

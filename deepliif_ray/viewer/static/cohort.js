// Patients and slides: a table, and a histogram a marker; each filters all others.

import { get } from "./api.js";
import { el, number } from "./dom.js";
import { rangeHistogram } from "./histogram.js";
import { dataTable } from "./table.js";

const rowsOf = (columns) => {
  const names = Object.keys(columns);
  return (columns[names[0]] ?? []).map((_, n) => Object.fromEntries(names.map((name) => [name, columns[name][n]])));
};

export async function cohortPage() {
  const cohort = await get("/api/cohort", { fresh: 1 });
  const slides = rowsOf(cohort.slides);
  const patients = new Map();
  for (const row of rowsOf(cohort.patients)) {
    if (!patients.has(row.patient_id)) patients.set(row.patient_id, { patient_id: row.patient_id, of: {}, flags: new Set() });
    patients.get(row.patient_id).of[row.marker] = row;
  }
  for (const slide of slides) {
    const patient = patients.get(slide.patient_id);
    for (const flag of slide.flags) patient?.flags.add(flag);
  }
  const everyone = [...patients.values()];
  const markers = [...new Set(slides.map((slide) => slide.marker))].sort();

  const flagged = (flags) => el("span", { class: "flag", title: flags.map((f) => `${f}: ${cohort.flags[f] ?? ""}`).join("\n") },
    flags.join(", "));
  const index = (row) => {
    if (!row) return "";
    if (row.index_percent === null) return el("span", { class: "quiet", title: row.notes }, "unknown");
    const few = row.too_few_cells ? el("span", { class: "flag", title: "too few cells" }, " few") : null;
    return el("span", { title: row.notes }, number(row.index_percent, 1), few);
  };
  const link = (slide) => el("a", { href: `#/slide/${encodeURIComponent(slide.slide_id)}` }, slide.slide_id);
  const ofPatient = new Map();
  for (const slide of slides) ofPatient.set(slide.patient_id, [...(ofPatient.get(slide.patient_id) ?? []), slide]);

  const tables = {
    patients: dataTable("Patients", [
      { name: "patient", title: "Patient", value: (row) => row.patient_id,
        show: (row) => el("button", { type: "button", onclick: () => only(row.patient_id) }, row.patient_id) },
      ...markers.map((marker) => ({
        name: marker, title: `${marker} %`, number: true, help: `Index of ${marker}, percent`,
        value: (row) => row.of[marker]?.index_percent ?? null, show: (row) => index(row.of[marker]),
      })),
      { name: "slides", title: "Slides", number: true, value: (row) => ofPatient.get(row.patient_id)?.length ?? 0,
        show: (row) => number(ofPatient.get(row.patient_id)?.length ?? 0) },
      { name: "flags", title: "Flags", value: (row) => row.flags.size || null, show: (row) => flagged([...row.flags]) },
    ], { sorted: "patient" }),
    slides: dataTable("Slides", [
      { name: "slide", title: "Slide", value: (row) => row.slide_id, show: link },
      { name: "patient", title: "Patient", value: (row) => row.patient_id, show: (row) => row.patient_id },
      { name: "marker", title: "Marker", value: (row) => row.marker, show: (row) => row.marker },
      { name: "index", title: "Index %", number: true, value: (row) => row.index_percent, show: index },
      { name: "interval", title: "95 % interval", number: true, value: (row) => row.ci_lower_percent,
        show: (row) => row.ci_lower_percent === null ? "" : `${number(row.ci_lower_percent, 1)}–${number(row.ci_upper_percent, 1)}` },
      { name: "cells", title: "Cells", number: true, value: (row) => row.n_called, show: (row) => number(row.n_called) },
      { name: "density", title: "Positive/mm²", number: true, value: (row) => row.positive_density_per_mm2,
        show: (row) => number(row.positive_density_per_mm2) },
      { name: "category", title: "Category", value: (row) => row.category, show: (row) => row.category ?? "" },
      { name: "flags", title: "Flags", value: (row) => row.flags.length || null, show: (row) => flagged(row.flags) },
      { name: "notes", title: "Notes", value: (row) => row.notes, show: (row) => el("span", { title: row.notes }, row.notes ?? "") },
    ], { sorted: "slide" }),
  };

  let kind = "patients";
  const search = el("input", { type: "search", placeholder: "Patient or slide", "aria-label": "Search patients and slides",
    oninput: () => refresh() });
  const marker = el("select", { "aria-label": "Marker", onchange: () => refresh() },
    el("option", { value: "" }, "All markers"), markers.map((name) => el("option", { value: name }, name)));
  const flags = el("input", { type: "checkbox", id: "flagged", onchange: () => refresh() });
  const count = el("span", { class: "quiet", role: "status" });
  const tabs = ["patients", "slides"].map((name) =>
    el("button", { type: "button", "aria-pressed": String(name === kind), onclick: () => turnTo(name) },
      name === "patients" ? "Patients" : "Slides"));
  const histograms = new Map(markers.map((name) => [name, rangeHistogram(name, 100, () => refresh())]));
  const section = el("section", { "aria-label": "Table" },
    el("div", { class: "bar" }, ...tabs, search, marker, el("span", {}, flags, " ", el("label", { for: "flagged" }, "flagged only")), count));

  function only(patient) {
    search.value = patient;
    turnTo("slides");
  }
  function turnTo(name) {
    kind = name;
    tabs.forEach((tab, n) => tab.setAttribute("aria-pressed", String((n === 0) === (kind === "patients"))));
    refresh();
  }
  function refresh() {
    const words = search.value.trim().toLowerCase();
    const hasText = (patient) => !words || patient.patient_id.toLowerCase().includes(words) ||
      (ofPatient.get(patient.patient_id) ?? []).some((slide) => slide.slide_id.toLowerCase().includes(words));
    const hasFlag = (patient) => !flags.checked || patient.flags.size > 0;
    const within = (patient, name) => {
      const range = histograms.get(name).range;
      const value = patient.of[name]?.index_percent ?? null;
      return !range || (value !== null && value >= range[0] && value <= range[1]);
    };
    const base = everyone.filter((patient) => hasText(patient) && hasFlag(patient));
    const valuesOf = (list, name) => list.map((patient) => patient.of[name]?.index_percent ?? null).filter((v) => v !== null);
    for (const [name, histogram] of histograms) {
      const left = base.filter((patient) => markers.every((other) => other === name || within(patient, other)));
      histogram.set(valuesOf(everyone, name), valuesOf(left, name));
    }
    const left = base.filter((patient) => markers.every((name) => within(patient, name)));
    const ids = new Set(left.map((patient) => patient.patient_id));
    const shown = kind === "patients"
      ? left.filter((patient) => !marker.value || patient.of[marker.value])
      : slides.filter((slide) => ids.has(slide.patient_id) && (!marker.value || slide.marker === marker.value) &&
          (!flags.checked || slide.flags.length) &&
          (!words || slide.patient_id.toLowerCase().includes(words) || slide.slide_id.toLowerCase().includes(words)));
    const total = kind === "patients" ? everyone.length : slides.length;
    count.textContent = `${number(shown.length)} of ${number(total)} ${kind}`;
    tables[kind === "patients" ? "slides" : "patients"].element.remove();
    section.append(tables[kind].element);
    tables[kind].set(shown);
  }

  const failures = cohort.n_failures
    ? el("p", { class: "alarm" }, `${number(cohort.n_failures)} slides failed; see SQL: FROM failures`) : null;
  const aside = el("aside", { "aria-label": "Indices by marker" }, el("h1", {}, "Cohort"),
    el("p", { class: "quiet" }, `${number(everyone.length)} patients, ${number(slides.length)} slides. Index of patients, percent; drag to filter.`),
    failures, [...histograms.values()].map((histogram) => histogram.element));
  return { title: "Cohort", element: el("div", { class: "cohort" }, aside, section), shown: refresh };
}

// Which page is shown.

import { get } from "./api.js";
import { cohortPage } from "./cohort.js";
import { el } from "./dom.js";
import { slidePage } from "./slide.js";
import { sqlPage } from "./sql.js";

const main = document.getElementById("main");
let about = null;
let leave = () => {};
let turn = 0;

async function show() {
  const mine = ++turn;
  leave();
  leave = () => {};
  const [, page = "", ...rest] = decodeURI(location.hash || "#/").split("/");
  const name = page === "slide" ? "cohort" : page || "cohort";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.replaceChildren(el("p", { class: "waiting" }, "Opening …"));
  try {
    about ??= await get("/api/about");
    document.getElementById("results").textContent = about.results;
    const made = await (page === "slide"
      ? slidePage(decodeURIComponent(rest.join("/")), about)
      : page === "sql"
        ? sqlPage()
        : cohortPage());
    if (mine !== turn) return made.leave?.();
    leave = made.leave ?? leave;
    document.title = `${made.title} · deepliif_ray`;
    main.replaceChildren(made.element);
    made.shown?.();
    main.focus({ preventScroll: true });
  } catch (error) {
    if (mine === turn) main.replaceChildren(el("p", { class: "waiting alarm" }, error.message));
  }
}

addEventListener("hashchange", show);
show();

// Elements made of text that is never taken for HTML.

/** Return an element. Properties named on… are listeners, others attributes; null and false leave one out. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  set(made, properties);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Return an element of SVG. */
export function svg(tag, properties = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  set(made, properties);
  made.append(...children);
  return made;
}

function set(made, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
}

/** Show a line at the foot of the page for a while. */
export function tell(text, seconds = 6) {
  const place = document.getElementById("told");
  place.textContent = text;
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => (place.textContent = ""), 1000 * seconds);
}

let count = 0;

/** Return an id that no other element has. */
export function newId() {
  count += 1;
  return `e${count}`;
}

export const number = (value, decimals = 0) =>
  value === null || value === undefined || Number.isNaN(value)
    ? "–"
    : value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });

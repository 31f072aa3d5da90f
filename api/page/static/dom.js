// Elements as function calls, so that no text is ever parsed as HTML.

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, string | number | boolean | EventListener | null | undefined>} Attributes */

/**
 * Make an element. An attribute `onclick` and the like is a listener; null, undefined and false leave an
 * attribute out, except that the states of ARIA are written as `false`.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === null || value === undefined) continue;
    else if (name.startsWith("aria-") || value !== false)
      element.setAttribute(name, value === true && !name.startsWith("aria-") ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/**
 * Replace the children of an element.
 * @param {Element} element
 * @param {...Child} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
}

/** @param {Child[]} children */
function nodes(children) {
  return children.filter((child) => child !== null && child !== undefined && child !== false).map((c) =>
    typeof c === "number" ? String(c) : /** @type {Node | string} */ (c),
  );
}

/**
 * Set a text only if it differs: writing the same text would still cost a layout.
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Tell a screen reader what has happened.
 * @param {string} text
 */
export function announce(text) {
  const region = document.getElementById("announce");
  if (region) region.textContent = text;
}

/**
 * A figure with its label.
 * @param {string} label
 * @param {Child} value
 * @param {Child} [note]
 * @param {string} [mark] ac, dc or bad: the colour that it has in charts
 */
export function tile(label, value, note, mark = "") {
  return h("div", { class: `tile ${mark}` }, h("dt", {}, label), h("dd", {}, value), note && h("dd", { class: "note" }, note));
}

/**
 * A labelled control.
 * @param {string} label
 * @param {HTMLElement} control
 */
export function field(label, control) {
  return h("label", { class: "field" }, h("span", {}, label), control);
}

/**
 * A choice of options, as value and text.
 * @param {[string, string][]} options
 * @param {string} chosen
 * @param {(value: string) => void} onChange
 */
export function select(options, chosen, onChange) {
  const element = h("select", { onchange: () => onChange(element.value) });
  element.append(...options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  return element;
}

/**
 * A table in a region that scrolls sideways by itself, so that the page does not.
 * @param {string} caption
 * @param {[string, string?][]} columns headings, and the class of each column
 * @param {Child[][]} rows
 * @param {Child[]} [sums] the last row
 */
export function table(caption, columns, rows, sums) {
  /** @param {Child[]} cells */
  const line = (cells) =>
    h("tr", {}, ...cells.map((cell, n) => h(n ? "td" : "th", n ? { class: columns[n]?.[1] } : { scope: "row", class: columns[0]?.[1] }, cell)));
  const hint = h("p", { class: "note sideways", hidden: true }, "Scroll sideways for more columns →");
  const region = h(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 },
    hint,
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, ...columns.map(([text, name]) => h("th", { scope: "col", class: name }, text)))),
      h("tbody", {}, ...rows.map(line)),
      sums && h("tfoot", {}, line(sums)),
    ),
  );
  showSides(region, hint);
  return region;
}

/**
 * Mark the sides on which a region has more than it shows, with a hint while it is at its beginning.
 * @param {HTMLElement} region
 * @param {HTMLElement} hint
 */
function showSides(region, hint) {
  const update = () => {
    const beyond = region.scrollWidth - region.clientWidth;
    const left = region.scrollLeft > 1;
    const right = region.scrollLeft < beyond - 1;
    hint.hidden = beyond <= 1;
    region.dataset.more = `${left ? "left" : ""} ${right ? "right" : ""}`.trim();
  };
  region.addEventListener("scroll", update, { passive: true });
  new ResizeObserver(update).observe(region);
}

/**
 * A button that saves what is shown.
 * @param {string} label
 * @param {() => Promise<void>} save
 */
export function csvButton(label, save) {
  const button = h("button", { type: "button", "aria-label": label, onclick: () => void press() }, "CSV");
  async function press() {
    button.disabled = true;
    try {
      await save();
      setText(button, "CSV");
    } catch (error) {
      setText(button, "CSV failed");
      button.title = /** @type {Error} */ (error).message;
      announce(button.title);
    }
    button.disabled = false;
  }
  return button;
}

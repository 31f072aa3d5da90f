// A table of any length that has only the rows in view as elements. Rows have one height.

import { fill, h } from "./dom.js";
import { compareIds } from "./order.js";

/**
 * @template T
 * @typedef {object} Column
 * @property {string} key
 * @property {string} title
 * @property {string} [className]
 * @property {(item: T) => number | string | null} [value] by which the column is sorted; none: by id
 * @property {(cell: HTMLElement, item: T) => void} show
 */

const BEYOND = 8; // rows above and below those in view

/** @template T */
export class VirtualTable {
  /** @type {T[]} */
  #items = [];
  /** @type {Map<string, HTMLTableRowElement>} */
  #rows = new Map();
  #shown = "";
  /** @type {Map<string, number>} */
  #ranks = new Map();
  #scheduled = false;

  /**
   * @param {string} label
   * @param {Column<T>[]} columns the first one has the row's link
   * @param {(item: T) => string} id
   * @param {{key: string, down: boolean}} order changed when a heading is pressed
   * @param {() => void} onOrder
   */
  constructor(label, columns, id, order, onOrder) {
    this.columns = columns;
    this.order = order;
    this.id = id;
    this.onOrder = onOrder;
    this.above = h("tbody", { "aria-hidden": true });
    this.below = h("tbody", { "aria-hidden": true });
    this.body = h("tbody");
    this.head = h("tr", { "aria-rowindex": 1 }, ...columns.map((column) => this.#heading(column)));
    this.grid = h("table", { class: "rows" }, h("caption", { class: "unseen" }, label), h("thead", {}, this.head), this.above, this.body, this.below);
    this.element = h("div", { class: "scroll list", role: "region", "aria-label": label, tabindex: 0 }, this.grid);
    this.element.addEventListener("scroll", () => this.draw(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** @param {Column<T>} column */
  #heading(column) {
    const button = h("button", { type: "button", onclick: () => this.#sort(column.key) }, column.title);
    return h("th", { scope: "col", class: column.className, "aria-sort": this.#direction(column.key), "data-key": column.key }, button);
  }

  /** @param {string} key */
  #direction(key) {
    return this.order.key !== key ? "none" : this.order.down ? "descending" : "ascending";
  }

  /** @param {string} key */
  #sort(key) {
    Object.assign(this.order, { key, down: this.order.key === key && !this.order.down });
    for (const cell of this.head.cells) cell.setAttribute("aria-sort", this.#direction(cell.dataset.key ?? ""));
    this.onOrder();
  }

  /**
   * Show these items in the order that was chosen; equal ones by id.
   * @param {T[]} items
   */
  show(items) {
    const value = this.columns.find((c) => c.key === this.order.key)?.value;
    const sign = this.order.down ? -1 : 1;
    const ranks = this.#rank(items.map(this.id));
    const keyed = items.map((item) => ({ item, key: value?.(item) ?? null, rank: ranks.get(this.id(item)) ?? 0 }));
    keyed.sort((a, b) => compare(a.key, b.key, sign) || (value ? 1 : sign) * (a.rank - b.rank));
    this.#items = keyed.map(({ item }) => item);
    this.grid.setAttribute("aria-rowcount", String(items.length + 1));
    this.draw();
  }

  /**
   * The places of ids in their order, and of those that were shown before. They are kept, because a list is shown twice a second
   * and ids are compared slowly.
   * @param {string[]} ids
   */
  #rank(ids) {
    const added = ids.filter((id) => !this.#ranks.has(id));
    if (added.length) this.#ranks = new Map([...this.#ranks.keys(), ...added].sort(compareIds).map((id, n) => [id, n]));
    return this.#ranks;
  }

  /** Bring the rows in view up to date, at the next frame. */
  draw() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#draw();
    });
  }

  /** Pixels; the style sheet has it in rem. */
  get rowHeight() {
    const root = getComputedStyle(document.documentElement);
    return parseFloat(root.getPropertyValue("--row")) * parseFloat(root.fontSize);
  }

  #draw() {
    const height = this.rowHeight;
    const first = Math.max(0, Math.floor(this.element.scrollTop / height) - BEYOND);
    const beyond = Math.min(this.#items.length, first + Math.ceil(this.element.clientHeight / height) + 2 * BEYOND);
    const items = this.#items.slice(first, beyond);
    const ids = items.map(this.id);
    space(this.above, first * height, this.columns.length);
    space(this.below, (this.#items.length - beyond) * height, this.columns.length);
    const shown = `${first} ${ids.join(" ")}`;
    if (shown !== this.#shown) this.#place(ids, first);
    this.#shown = shown;
    for (const [n, item] of items.entries()) {
      const row = this.#rows.get(ids[n] ?? "");
      if (row) for (const [c, column] of this.columns.entries()) column.show(/** @type {HTMLElement} */ (row.cells[c]), item);
    }
  }

  /**
   * Put the rows of these devices into the table; the focus stays on its device.
   * @param {string[]} ids
   * @param {number} first
   */
  #place(ids, first) {
    const focused = document.activeElement?.closest("tr")?.dataset.id;
    const rows = new Map(ids.map((id) => [id, this.#rows.get(id) ?? this.#row(id)]));
    for (const [n, id] of ids.entries()) rows.get(id)?.setAttribute("aria-rowindex", String(first + n + 2));
    const had = this.body.contains(document.activeElement);
    this.body.replaceChildren(...rows.values());
    this.#rows = rows;
    if (had) (rows.get(focused ?? "")?.querySelector("a") ?? this.element).focus({ preventScroll: true });
  }

  /** @param {string} id */
  #row(id) {
    return h("tr", { "data-id": id }, ...this.columns.map((c, n) => h(n ? "td" : "th", n ? { class: c.className } : { scope: "row", class: c.className })));
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const page = Math.floor(this.element.clientHeight / this.rowHeight) - 2;
    const steps = /** @type {Record<string, number>} */ ({ ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity });
    const step = steps[event.key];
    if (step === undefined || event.target instanceof HTMLButtonElement || !this.#items.length) return;
    event.preventDefault();
    const id = document.activeElement?.closest("tr")?.dataset.id;
    const at = id === undefined ? -1 : this.#items.findIndex((item) => this.id(item) === id);
    const next = Math.max(0, Math.min(this.#items.length - 1, at + step));
    const top = next * this.rowHeight;
    const visible = this.element.clientHeight - 2 * this.rowHeight;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top > this.element.scrollTop + visible) this.element.scrollTop = top - visible;
    this.#draw();
    const item = this.#items[next];
    if (item) this.#rows.get(this.id(item))?.querySelector("a")?.focus({ preventScroll: true });
  }
}

/**
 * @param {HTMLTableSectionElement} body
 * @param {number} height
 * @param {number} columns
 */
function space(body, height, columns) {
  if (!height) return fill(body);
  const cell = body.querySelector("td") ?? h("td", { colspan: columns });
  if (!cell.parentElement) fill(body, h("tr", {}, cell));
  cell.style.height = `${height}px`;
}

/**
 * Nothing comes last, in either direction.
 * @param {number | string | null} one
 * @param {number | string | null} other
 * @param {number} sign
 */
function compare(one, other, sign) {
  if (one === other) return 0;
  if (one === null || other === null) return one === null ? 1 : -1;
  return one < other ? -sign : sign;
}

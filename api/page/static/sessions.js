// Charging sessions of a vehicle, a meter or a site in a month.

import { get, saveCsv } from "./api.js";
import { announce, csvButton, field, fill, h, select, setText, tile } from "./dom.js";
import { count, kwh, percent } from "./format.js";
import { declared, register, sites } from "./register.js";
import { live } from "./live.js";
import { compareIds } from "./order.js";
import { sessionTable, sumsOf } from "./session-table.js";
import { VirtualTable } from "./virtual-table.js";
import { firstDate, periodOf, today, viewerZone } from "./time.js";

/** @import {Session} from "./session-table.js" */
/** @typedef {"vehicle" | "meter" | "site"} Scope */

const MOST_SUGGESTIONS = 50;

/** @type {import("./app.js").View} */
export function sessions(main, query, signal) {
  const zone = viewerZone();
  const now = firstDate(today(zone), "month").slice(0, 7);
  const state = {
    by: /** @type {Scope} */ (["vehicle", "meter", "site"].find((by) => by === query.get("by")) ?? "vehicle"),
    of: query.get("of") ?? "",
    month: query.get("month") ?? now,
  };
  const addressOf = (/** @type {Partial<typeof state>} */ change) => `#/sessions?${new URLSearchParams({ ...state, ...change })}`;
  const go = (/** @type {Partial<typeof state>} */ change) => { location.hash = addressOf(change); };
  const names = h("datalist", { id: "names" });
  const input = h("input", { value: state.of, list: "names", autocomplete: "off", spellcheck: "false", required: true, oninput: suggest });
  const month = h("input", { type: "month", value: state.month, required: true, max: now, placeholder: "2026-01", pattern: "\\d{4}-\\d{2}" });
  const result = h("div", { class: "stack" });
  const form = h(
    "form",
    { class: "controls" },
    field("Of a", select([["vehicle", "Vehicle"], ["meter", "Meter"], ["site", "Site"]], state.by, (by) => go({ by: /** @type {Scope} */ (by), of: "" }))),
    field(state.by === "site" ? "Site" : "Id", input),
    names,
    field("Month", month),
    h("button", { type: "submit", class: "primary" }, "Show"),
    state.of && h("button", { type: "button", onclick: () => go({ of: "" }) }, "Choose from a list"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go({ of: input.value.trim(), month: month.value });
  });
  fill(main, h("h1", {}, "Sessions"), h("section", { class: "card", "aria-label": "Question" }, form), result);

  const nameOf = (/** @type {string} */ id) => (state.by === "site" ? "" : (declared[`${state.by}s`].get(id)?.name ?? ""));
  const listed = state.of ? null : choiceOf(state.by, (id) => addressOf({ of: id }), nameOf);
  function suggest() {
    const text = input.value.toLowerCase();
    const found = choices(state.by).filter((id) => id.toLowerCase().includes(text) || nameOf(id).toLowerCase().includes(text)).sort(compareIds);
    fill(names, ...found.slice(0, MOST_SUGGESTIONS).map((id) => h("option", { value: id }, nameOf(id))));
    listed?.show(found.map((id) => ({ id })));
  }
  if (listed) fill(result, h("section", { class: "card", "aria-label": "Choice" }, h("p", { class: "note" }, `Choose a ${state.by}, or enter a part of its name.`), listed.element));
  else void show();
  suggest();
  live.addEventListener("complete", suggest, { signal });
  register.addEventListener("change", suggest, { signal });

  async function show() {
    const { from, to } = periodOf(`${state.month}-01`, "month", zone);
    const asked = { [state.by]: state.of, from: from.toISOString(), to: to.toISOString(), limit: 1000 };
    /** @type {Session[]} */
    const items = [];
    /** @param {string} [cursor] */
    const more = async (cursor) => {
      const page = await get("/v1/sessions", { query: { ...asked, cursor }, signal });
      items.push(...page.items);
      const following = page.nextCursor;
      const button = following && h("button", { type: "button", onclick: () => more(following).catch((error) => announce(error.message)) }, "Load more");
      draw(`${page.algorithm.name}/${page.algorithm.version}`, page.detachedDays, button || null);
    };
    fill(result, h("p", { class: "note", role: "status" }, "Loading …"));
    await more().catch((error) => {
      if (!signal.aborted) fill(result, h("p", { class: "problem", role: "alert" }, error.message));
    });

    /**
     * @param {string} algorithm
     * @param {string[]} detached
     * @param {HTMLElement | null} button
     */
    function draw(algorithm, detached, button) {
      const sums = sumsOf(items);
      const csv = csvButton("Sessions as CSV", () => saveCsv("/v1/sessions", { query: asked }));
      const unsure = items.filter((item) => item.openStart || item.openEnd || item.coverage < 0.999 || item.suspectKwh > 0).length;
      fill(
        result,
        h(
          "section",
          { class: "card", "aria-label": "Sums" },
          h("h2", {}, `${state.of}, ${state.month}`),
          h(
            "dl",
            { class: "tiles" },
            tile("Sessions", items.length, unsure ? `${unsure} open or incomplete` : "all complete"),
            tile("AC", kwh(sums.ac), null, "ac"),
            tile("DC", kwh(sums.dc), null, "dc"),
            tile("Losses", kwh(sums.losses), "where both sides are known"),
            tile("Efficiency", percent(sums.efficiency, 1)),
          ),
        ),
        h(
          "section",
          { class: "card", "aria-label": "Sessions" },
          h("div", { class: "heading" }, h("h2", {}, "Sessions"), csv),
          items.length ? sessionTable(items, zone) : h("p", { class: "note" }, "No charging session in this month."),
          button,
          h("p", { class: "note" }, `Times in ${zone}. Sessions are derived by ${algorithm}${detached.length ? `, without the detached days ${detached.join(", ")}` : ""}.`),
        ),
      );
      announce(count(items.length, "session"));
    }
  }
}

/**
 * The ids, or sites, of which there may be sessions.
 * @param {Scope} by
 */
function choices(by) {
  return by === "site" ? sites() : [...new Set([...live[`${by}s`].keys(), ...declared[`${by}s`].keys()])];
}

/**
 * A list of any length to choose from, by mouse, finger or keyboard.
 * @param {Scope} by
 * @param {(id: string) => string} addressOf
 * @param {(id: string) => string} nameOf
 */
function choiceOf(by, addressOf, nameOf) {
  const title = { vehicle: "Vehicles", meter: "Meters", site: "Sites" }[by];
  const order = { key: "id", down: false };
  /** @type {import("./virtual-table.js").Column<{id: string}>} */
  const column = {
    key: "id",
    title: title.slice(0, -1),
    className: "device",
    show(cell, { id }) {
      if (!cell.firstChild) cell.append(h("a", { href: addressOf(id) }, id), h("span", { class: "note" }));
      setText(/** @type {Element} */ (cell.lastChild), nameOf(id));
    },
  };
  /** @type {{id: string}[]} */
  let shown = [];
  const list = new VirtualTable(title, [column], ({ id }) => id, order, () => list.show(shown));
  return { element: list.element, show: (/** @type {{id: string}[]} */ items) => list.show((shown = items)) };
}

// Charging sessions of a vehicle, a meter or a site in a month.

import { get, saveCsv } from "./api.js";
import { announce, csvButton, field, fill, h, select, tile } from "./dom.js";
import { count, kwh, percent } from "./format.js";
import { declared, register, sites } from "./register.js";
import { live } from "./live.js";
import { sessionTable, sumsOf } from "./session-table.js";
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
  const go = (/** @type {Partial<typeof state>} */ change) => { location.hash = `#/sessions?${new URLSearchParams({ ...state, ...change })}`; };
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
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go({ of: input.value.trim(), month: month.value });
  });
  fill(main, h("h1", {}, "Sessions"), h("section", { class: "card", "aria-label": "Question" }, form), result);

  function suggest() {
    const all = state.by === "site" ? sites() : [...live[state.by === "vehicle" ? "vehicles" : "meters"].keys()];
    const text = input.value.toLowerCase();
    const found = all.filter((name) => name.toLowerCase().includes(text)).slice(0, MOST_SUGGESTIONS);
    fill(names, ...found.map((name) => h("option", { value: name }, (state.by === "site" ? null : declared[`${state.by}s`].get(name)?.name) ?? "")));
  }
  suggest();
  live.addEventListener("state", suggest, { signal });
  register.addEventListener("change", suggest, { signal });
  if (state.of) void show();
  else fill(result, h("p", { class: "note" }, "Choose a vehicle, a meter or a site."));

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

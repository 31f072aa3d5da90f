// How far the figures can be relied on, the worst devices first, and the rejected messages.

import { get, saveCsv } from "./api.js";
import { announce, csvButton, field, fill, h, select, table, tile } from "./dom.js";
import { age, count, coverage, dateTime, kwh, number } from "./format.js";
import { compareIds } from "./order.js";
import { rejects } from "./rejects.js";
import { register, sites } from "./register.js";
import { viewerZone } from "./time.js";

/** @import {Asked, Schemas} from "../types" */
/** @typedef {Schemas["Quality"]} Quality */
/** @typedef {NonNullable<Asked<"/v1/quality">["query"]>} Query */

/** @type {[NonNullable<Query["sort"]>, string][]} */
const ORDERS = [
  ["severity", "Severity"], ["coverage", "Coverage"], ["ageS", "Age"], ["suspectKwh", "Withheld energy"], ["resets", "Resets"],
  ["conflicts", "Conflicts"], ["implausible", "Implausible readings"], ["unassignedKwh", "Unassigned energy"],
];
/** @type {[string, string][]} */
const DAYS = [["1", "24 hours"], ["7", "7 days"], ["30", "30 days"]];

/** @type {import("./app.js").View} */
export function quality(main, query, signal) {
  const state = { days: query.get("days") ?? "1", kind: query.get("kind") ?? "", site: query.get("site") ?? "", sort: query.get("sort") ?? "severity" };
  const go = (/** @type {Partial<typeof state>} */ change) => { location.hash = `#/quality?${new URLSearchParams({ ...state, ...change })}`; };
  const siteField = h("span");
  const showSites = () => {
    const options = /** @type {[string, string][]} */ ([["", "All sites"], ...sites().map((site) => [site, site])]);
    if (options.length > 1) fill(siteField, field("Site", select(options, state.site, (site) => go({ site }))));
  };
  const to = Date.now();
  const period = { from: new Date(to - Number(state.days) * 86_400_000).toISOString(), to: new Date(to).toISOString() };
  const result = h("div", { class: "stack" }, h("p", { class: "note", role: "status" }, "Loading …"));
  fill(
    main,
    h("h1", {}, "Data quality"),
    h(
      "section",
      { class: "card controls", "aria-label": "Question" },
      field("Period", select(DAYS, state.days, (days) => go({ days }))),
      field("Devices", select([["", "All"], ["vehicles", "Vehicles"], ["meters", "Meters"]], state.kind, (kind) => go({ kind }))),
      siteField,
      field("Worst by", select(ORDERS, state.sort, (sort) => go({ sort }))),
    ),
    result,
    rejects(period, signal),
  );
  showSites();
  register.addEventListener("change", showSites, { signal });

  const asked = /** @type {Query} */ ({
    ...period, sort: state.sort, limit: 100,
    ...(state.kind ? { kind: state.kind } : {}), ...(state.site ? { site: state.site } : {}),
  });
  /** @type {Quality[]} */
  const items = [];
  /** @param {string} [cursor] */
  const more = async (cursor) => {
    const page = await get("/v1/quality", { query: { ...asked, cursor }, signal });
    items.push(...page.items);
    const following = page.nextCursor;
    const button = following && h("button", { type: "button", onclick: () => more(following).catch((error) => announce(error.message)) }, "Load more");
    const csv = csvButton("Quality as CSV", () => saveCsv("/v1/quality", { query: asked }));
    fill(
      result,
      h("section", { class: "card", "aria-label": "Totals" }, h("h2", {}, "Totals"), h("dl", { class: "tiles" }, ...totals(page.totals))),
      h(
        "section",
        { class: "card", "aria-label": "Devices" },
        h("div", { class: "heading" }, h("h2", {}, "Devices"), csv),
        qualityTable(orderEqual(items, asked.sort ?? "severity")),
        button,
        h("p", { class: "note" }, `Times in ${viewerZone()}.`),
      ),
    );
    announce(count(items.length, "device"));
  };
  more().catch((error) => {
    if (!signal.aborted) fill(result, h("p", { class: "problem", role: "alert" }, error.message));
  });
}

/** @param {Schemas["QualityTotals"]} sums */
function totals(sums) {
  const faults = (/** @type {string} */ label, /** @type {number} */ n, /** @type {string | null} */ note = null) => tile(label, number(n, 0), note, n ? "bad" : "");
  return [
    tile("Devices", number(sums.devices, 0), `${number(sums.faulty, 0)} with a fault`),
    tile("Coverage", coverage(sums.coverage)),
    faults("Silent", sums.silent, sums.neverSeen ? `${number(sums.neverSeen, 0)} never seen` : null),
    faults("Resets", sums.resets),
    tile("Withheld", kwh(sums.suspectKwh), null, sums.suspectKwh ? "bad" : ""),
    tile("Unassigned", kwh(sums.unassignedKwh)),
    faults("Conflicts", sums.conflicts),
    faults("Implausible", sums.implausible),
  ];
}

/**
 * The devices as the API orders them, but those that are equally bad by id as people read it.
 * @param {Quality[]} items
 * @param {NonNullable<Query["sort"]>} figure
 */
function orderEqual(items, figure) {
  const isEqual = (/** @type {Quality} */ one, /** @type {Quality} */ other) =>
    one[figure] === other[figure] && one.severity === other.severity && one.kind === other.kind;
  let place = 0;
  const placed = items.map((item, n) => {
    const before = items[n - 1];
    if (before && !isEqual(before, item)) place = n;
    return { item, place };
  });
  return placed.sort((a, b) => a.place - b.place || compareIds(a.item.id, b.item.id)).map(({ item }) => item);
}

/** @param {Quality[]} items */
function qualityTable(items) {
  /** @param {string | number} text @param {unknown} isBad */
  const cell = (text, isBad) => h("span", isBad ? { class: "bad" } : {}, text);
  /** @type {[string, string?][]} */
  const columns = [
    ["Device"], ["Kind"], ["Site"], ["Coverage", "number"], ["Silent"], ["Last reading"], ["Interval", "number"], ["Resets", "number"],
    ["Withheld", "number"], ["Unassigned", "number"], ["Conflicts", "number"], ["Implausible", "number"], ["Severity", "number"],
  ];
  const rows = items.map((item) => [
    h("a", { href: `#/${item.kind}s/${item.id}` }, item.id),
    item.kind,
    item.site ?? "–",
    cell(coverage(item.coverage), item.coverage !== null && item.coverage < 0.99),
    cell(item.silent ? "silent" : "no", item.silent),
    item.lastReadingAt === null ? "never" : dateTime(item.lastReadingAt, viewerZone()),
    age(item.intervalS),
    cell(item.resets, item.resets),
    cell(kwh(item.suspectKwh), item.suspectKwh),
    kwh(item.unassignedKwh),
    cell(item.conflicts, item.conflicts),
    cell(item.implausible, item.implausible),
    number(item.severity, 2),
  ]);
  return table("Devices, the worst first", columns, rows);
}

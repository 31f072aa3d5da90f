// A vehicle or a meter: its energy, measures and sessions in a day, week, month or year.

import { get, saveCsv } from "./api.js";
import { energyChart, isInterpolated, legend, loadCharts, MARKED, seriesChart, usual, withoutCharts } from "./charts.js";
import { csvButton, field, fill, h, select, setText, table, tile } from "./dom.js";
import { ago, count, coverage, format, kw, kwh, number, percent } from "./format.js";
import { activityOf, live, powerOf } from "./live.js";
import { declared, intervalOf, register } from "./register.js";
import { sessionTable } from "./session-table.js";
import { firstDate, periodOf, title, today, viewerZone } from "./time.js";

/** @import {Schemas} from "../types" */
/** @import {EnergyItem, Gap} from "./charts.js" */
/** @import {Span} from "./time.js" */
/** @typedef {"vehicles" | "meters"} Kind */
/** @typedef {{kind: Kind, id: string, span: Span, date: string, zone: string}} Asked */
/** @typedef {{from: string, to: string}} Bounds */

/** @type {Record<Span, {bucket: "hour" | "day" | "month", name: Intl.DateTimeFormatOptions, axis: Intl.DateTimeFormatOptions}>} */
const SPANS = {
  day: { bucket: "hour", name: { hour: "2-digit", minute: "2-digit" }, axis: { hour: "2-digit", minute: "2-digit" } },
  week: { bucket: "day", name: { weekday: "short", day: "numeric" }, axis: { weekday: "short", day: "numeric" } },
  month: { bucket: "day", name: { day: "numeric" }, axis: { day: "numeric", month: "short" } },
  year: { bucket: "month", name: { month: "short" }, axis: { month: "short" } },
};
const MEASURES = /** @type {const} */ ({
  vehicles: [["soc", "State of charge", "dc"], ["powerKw", "Power", "ac"], ["batteryTemp", "Battery temperature", "out"]],
  meters: [["powerKw", "Power", "ac"], ["voltage", "Voltage", "out"]],
});

/** @type {import("./app.js").View} */
export const vehicle = (main, query, signal, id) => device(main, asked("vehicles", id, query), signal);
/** @type {import("./app.js").View} */
export const meter = (main, query, signal, id) => device(main, asked("meters", id, query), signal);

/**
 * @param {Kind} kind
 * @param {string} id
 * @param {URLSearchParams} query
 * @returns {Asked}
 */
function asked(kind, id, query) {
  const zone = query.get("tz") ?? viewerZone();
  const span = /** @type {Span} */ (query.get("span") ?? "day");
  return { kind, id, zone, span: span in SPANS ? span : "day", date: query.get("date") ?? today(zone) };
}

/** @param {Asked} a */
const addressOf = ({ kind, id, span, date, zone }) => `#/${kind}/${id}?${new URLSearchParams({ span, date, tz: zone })}`;

/**
 * @param {HTMLElement} main
 * @param {Asked} a
 * @param {AbortSignal} signal
 */
async function device(main, a, signal) {
  const body = h("div", { class: "stack" }, h("p", { class: "note", role: "status" }, "Loading …"));
  void loadCharts(); // while the answers are worked out
  fill(main, heading(a, signal), controls(a), body);
  const sessions = sessionsCard(a, signal); // those of a year take longer than its charts
  try {
    const found = a.kind === "vehicles" ? await readVehicle(a, signal) : await readMeter(a, signal);
    if (!signal.aborted) await show(body, a, found, sessions.card, signal);
    await sessions.shown;
    performance.mark("device-drawn");
  } catch (error) {
    if (!signal.aborted) fill(body, h("p", { class: "problem", role: "alert" }, /** @type {Error} */ (error).message));
  }
}

/**
 * Name, site and latest state.
 * @param {Asked} a
 * @param {AbortSignal} signal
 */
function heading({ kind, id }, signal) {
  const about = h("p", { class: "note" });
  const now = h("p");
  const show = () => {
    const known = declared[kind].get(id);
    setText(about, [known?.name, known?.site].filter(Boolean).join(" · "));
    const row = live[kind].get(id);
    if (!row) return setText(now, live.complete ? "No reading yet." : "");
    const power = powerOf(row, intervalOf(row));
    const state = "vehicleId" in row ? activityOf(row, intervalOf(row)) : row.silent ? "silent" : "reports";
    const soc = "soc" in row && row.soc !== null ? `${number(row.soc, 0)} %` : null;
    setText(now, [state, soc, power === null ? null : kw(power), ago(live.age(row))].filter(Boolean).join(" · "));
  };
  show();
  live.addEventListener("rows", show, { signal });
  register.addEventListener("change", show, { signal });
  return h("div", { class: "heading" }, h("div", {}, h("h1", {}, id), about), now);
}

/** @param {Asked} a */
function controls(a) {
  const go = (/** @type {Partial<Asked>} */ change) => { location.hash = addressOf({ ...a, ...change }); };
  const zones = new Set([a.zone, viewerZone(), "UTC"]);
  const site = declared[a.kind].get(a.id)?.timeZone;
  if (site) zones.add(site);
  const spans = /** @type {Span[]} */ (Object.keys(SPANS)).map((span) =>
    h("button", { type: "button", "aria-pressed": span === a.span, onclick: () => go({ span }) }, span[0]?.toUpperCase() + span.slice(1)),
  );
  const date = h("input", { type: "date", value: a.date, onchange: () => date.value && go({ date: date.value }) });
  return h(
    "div",
    { class: "controls" },
    h("div", { class: "group", role: "group", "aria-label": "Length of the period" }, ...spans),
    h(
      "div",
      { class: "group", role: "group", "aria-label": "Period" },
      h("button", { type: "button", "aria-label": `Previous ${a.span}`, onclick: () => go({ date: firstDate(a.date, a.span, -1) }) }, "←"),
      h("button", { type: "button", onclick: () => go({ date: today(a.zone) }) }, "Today"),
      h("button", { type: "button", "aria-label": `Next ${a.span}`, onclick: () => go({ date: firstDate(a.date, a.span, 1) }) }, "→"),
    ),
    field("Date", date),
    field("Time zone", select([...zones].map((zone) => [zone, zone === site && zone !== viewerZone() ? `${zone} (site)` : zone]), a.zone, (zone) => go({ zone }))),
  );
}

/**
 * @typedef {object} Found
 * @property {Bounds} period
 * @property {EnergyItem[]} items
 * @property {Schemas["Series"]} series
 * @property {Gap[]} gaps
 * @property {Schemas["Performance"] | null} performance
 */

/** @param {Asked} a */
function questions(a) {
  const span = periodOf(a.date, a.span, a.zone);
  const period = { from: span.from.toISOString(), to: span.to.toISOString() };
  const energy = { of: a.kind, id: [a.id], bucket: SPANS[a.span].bucket, tz: a.zone, ...period };
  return { period, energy, sessions: { [a.kind.slice(0, -1)]: a.id, limit: 200, ...period } };
}

/**
 * A device that has never reported has no series; what is declared or assigned is answered all the same.
 * @template T
 * @param {Promise<T>} answer
 * @param {T} none
 */
const orNone = (answer, none) => answer.catch((error) => { if (error.status === 404) return none; throw error; });

/**
 * @param {Asked} a
 * @param {AbortSignal} signal
 * @returns {Promise<Found>}
 */
async function readVehicle(a, signal) {
  const { period, energy } = questions(a);
  const measure = MEASURES.vehicles.map(([name]) => name);
  const [byTime, series, performance] = await Promise.all([
    get("/v1/analytics/energy", { query: energy, signal }),
    orNone(get("/v1/analytics/series/vehicles/{vehicleId}", { path: { vehicleId: a.id }, query: { measure, points: 600, ...period }, signal }), noSeries(period)),
    get("/v1/analytics/performance/{vehicleId}", { path: { vehicleId: a.id }, query: period, signal }),
  ]);
  const gaps = performance.gaps.filter((gap) => gap.side === "dc");
  return { period, items: byTime.items, series, gaps, performance };
}

/**
 * @param {Asked} a
 * @param {AbortSignal} signal
 * @returns {Promise<Found>}
 */
async function readMeter(a, signal) {
  const { period, energy } = questions(a);
  const measure = MEASURES.meters.map(([name]) => name);
  const [byTime, series] = await Promise.all([
    get("/v1/analytics/energy", { query: energy, signal }),
    orNone(get("/v1/analytics/series/meters/{meterId}", { path: { meterId: a.id }, query: { measure, points: 600, ...period }, signal }), noSeries(period)),
  ]);
  return { period, items: byTime.items, series, gaps: gapsOf(series, byTime.items), performance: null };
}

/** @param {Bounds} period @returns {Schemas["Series"]} */
const noSeries = (period) => ({ ...period, detachedDays: [], series: [] });

/**
 * Where a meter reported nothing: the API lists gaps of vehicles only. Buckets without any coverage count as a whole.
 * @param {Schemas["Series"]} series
 * @param {EnergyItem[]} items
 * @returns {Gap[]}
 */
export function gapsOf(series, items) {
  const gaps = items.filter((item) => item.coverage === 0).map(({ from, to }) => ({ from, to }));
  const columns = series.series.map((one) => one.columns).sort((a, b) => b.length - a.length)[0] ?? [];
  const apart = usual(columns);
  /** @param {string | undefined} from @param {string | undefined} to */
  const add = (from, to) => {
    if (from && to && (Date.parse(to) - Date.parse(from)) / 1000 > 2.5 * apart) gaps.push({ from, to });
  };
  columns.forEach((column, n) => add(columns[n - 1]?.to, column.from));
  const reported = items.filter((item) => item.coverage);
  const [first, last] = [reported[0], reported.at(-1)];
  if (first?.coverage !== 1) add(first?.from, columns[0]?.from);
  if (last?.coverage !== 1) add(columns.at(-1)?.to, endOf(last));
  return gaps;
}

/** The end of a bucket, or now while it has not ended. @param {EnergyItem | undefined} item */
function endOf(item) {
  return item && new Date(Math.min(Date.parse(item.to), live.now())).toISOString();
}

/**
 * @param {HTMLElement} body
 * @param {Asked} a
 * @param {Found} found
 * @param {HTMLElement} sessions
 * @param {AbortSignal} signal
 */
async function show(body, a, found, sessions, signal) {
  const isVehicle = a.kind === "vehicles";
  const chart = h("div", { class: "chart" });
  const charts = h("div", { class: "split" });
  const { energy } = questions(a);
  const name = (/** @type {EnergyItem} */ item) => format(item.from, a.zone, SPANS[a.span].name);
  fill(
    body,
    h("section", { class: "card", "aria-label": "Totals" }, h("h2", {}, title(a.date, a.span)), h("dl", { class: "tiles" }, ...totals(found))),
    h(
      "section",
      { class: "card", "aria-label": "Energy" },
      h("div", { class: "heading" }, h("h2", {}, `Energy by ${SPANS[a.span].bucket}`), csvButton("Energy as CSV", () => saveCsv("/v1/analytics/energy", { query: energy }))),
      chart,
      legend([
        ...(isVehicle
          ? /** @type {[string, string][]} */ ([["ac", "AC from its meters; what shows above the DC is not in the battery"], ["dc", "DC into the battery"], ["out", "DC out of it"]])
          : /** @type {[string, string][]} */ ([["ac", "AC drawn"], ["out", "AC fed back"]])),
        ["gap", "not covered by readings"],
        ["edge", `more than ${percent(MARKED.share)} interpolated at the edges`],
        ["withheld", "energy withheld, or a reset"],
      ]),
      h("details", {}, h("summary", {}, "Table"), energyTable(found.items, name, isVehicle)),
    ),
    charts,
    sessions,
  );
  const names = MEASURES[a.kind].map(([measure]) => /** @type {string} */ (measure));
  const measures = found.series.series.filter((one) => one.columns.length).sort((one, other) => names.indexOf(one.measure) - names.indexOf(other.measure));
  fill(charts, ...measures.map((one) => measureCard(a, one)));
  if (!measures.length) fill(charts, h("p", { class: "note" }, "No measure was reported in this period."));
  if (!(await loadCharts())) return withoutCharts(chart);
  if (signal.aborted) return;
  energyChart(chart, `Energy by ${SPANS[a.span].bucket}; the table below has the figures`, found.items, found.gaps, name, isVehicle, signal);
  for (const one of measures) {
    const [, text, colour] = MEASURES[a.kind].find(([measure]) => measure === one.measure) ?? ["", one.measure, "ac"];
    const element = charts.querySelector(`[data-measure="${one.measure}"]`);
    /** @type {[number, number] | undefined} */
    const range = one.measure === "soc" ? [0, 100] : undefined;
    const look = { colour, zone: a.zone, axis: SPANS[a.span].axis, fromZero: one.measure === "powerKw", ...(range ? { range } : {}) };
    if (element) seriesChart(/** @type {HTMLElement} */ (element), text, one, found.period, found.gaps, look, signal);
  }
  performance.mark("charts-drawn");
}

/**
 * The card of the sessions, which fills when they are answered, and the time when it has.
 * @param {Asked} a
 * @param {AbortSignal} signal
 * @returns {{card: HTMLElement, shown: Promise<void>}}
 */
function sessionsCard(a, signal) {
  const { sessions: query } = questions(a);
  const list = h("div", { class: "stack" }, h("p", { class: "note", role: "status" }, "Loading …"));
  const heading = h("div", { class: "heading" }, h("h2", {}, "Sessions"), csvButton("Sessions as CSV", () => saveCsv("/v1/sessions", { query })));
  /** @param {Schemas["SessionPage"]} found */
  const show = ({ items, nextCursor }) =>
    fill(
      list,
      items.length ? sessionTable(items, a.zone) : h("p", { class: "note" }, "No charging session in this period."),
      nextCursor !== null && h("p", { class: "note" }, "The first 200 are shown; the CSV has all of them."),
    );
  const none = { algorithm: { name: "", version: 0 }, detachedDays: [], items: [], nextCursor: null };
  const shown = orNone(get("/v1/sessions", { query, signal }), none).then(show, (error) => {
    if (!signal.aborted) fill(list, h("p", { class: "problem", role: "alert" }, error.message));
  });
  return { card: h("section", { class: "card", "aria-label": "Sessions" }, heading, list), shown };
}

/**
 * @param {Asked} a
 * @param {Schemas["MeasureSeries"]} series
 */
function measureCard(a, series) {
  const text = MEASURES[a.kind].find(([measure]) => measure === series.measure)?.[1] ?? series.measure;
  const { period } = questions(a);
  const id = a.id;
  const save = () =>
    a.kind === "vehicles"
      ? saveCsv("/v1/analytics/series/vehicles/{vehicleId}", { path: { vehicleId: id }, query: { measure: [/** @type {"soc"} */ (series.measure)], ...period } })
      : saveCsv("/v1/analytics/series/meters/{meterId}", { path: { meterId: id }, query: { measure: [/** @type {"voltage"} */ (series.measure)], ...period } });
  return h(
    "section",
    { class: "card", "aria-label": text },
    h("div", { class: "heading" }, h("h2", {}, text), csvButton(`${text} as CSV`, save)),
    h("div", { class: "chart", "data-measure": series.measure }),
    h("p", { class: "note" }, extent(series)),
  );
}

/** @param {Schemas["MeasureSeries"]} series */
function extent({ columns, unit }) {
  const least = Math.min(...columns.map((column) => column.min));
  const most = Math.max(...columns.map((column) => column.max));
  const shown = unit === "degC" ? "°C" : unit;
  return `Least ${number(least)} ${shown}, greatest ${number(most)} ${shown}.`;
}

/** @param {Found} found */
function totals({ items, performance: p }) {
  const sum = (/** @type {(item: EnergyItem) => number | null} */ of) => items.reduce((total, item) => total + (of(item) ?? 0), 0);
  if (p)
    return [
      tile("AC charged", kwh(p.chargeKwhAc), `${kwh(p.totalKwhConsumedAc)} net in all`, "ac"),
      tile("DC charged", kwh(p.chargeKwhDc), `${kwh(p.totalKwhDeliveredDc)} net in all, driving included`, "dc"),
      tile("Losses", p.efficiency === null ? "–" : kwh(p.chargeKwhAc - p.chargeKwhDc), p.efficiencyReason),
      tile("Efficiency", percent(p.efficiency, 1), p.efficiency !== null && p.efficiency > 1 ? "above 100 %: a fault" : null, p.efficiency !== null && p.efficiency > 1 ? "bad" : ""),
      tile("Coverage DC", coverage(p.dcCoverage), p.complete ? "complete" : `AC ${coverage(p.acCoverage)}`),
      tile("Withheld", kwh(p.suspectKwh), p.resets ? count(p.resets, "reset") : "no reset", p.suspectKwh || p.resets ? "bad" : ""),
      tile("Interpolated", kwh(p.boundaryKwh), p.dividedKwh ? `at the edges of the period; ${kwh(p.dividedKwh)} where an assignment changes` : "at the edges of the period"),
      tile("Battery", p.avgBatteryTemp === null ? "–" : `${number(p.avgBatteryTemp)} °C`, "mean"),
    ];
  const suspect = sum((item) => item.suspectKwh);
  const resets = sum((item) => item.resets);
  const elapsed = (/** @type {EnergyItem} */ item) => (item.coverage === null ? 0 : Date.parse(endOf(item) ?? "") - Date.parse(item.from));
  const time = sum(elapsed);
  const mean = time ? sum((item) => (item.coverage ?? 0) * elapsed(item)) / time : null;
  return [
    tile("AC drawn", kwh(sum((item) => item.kwhIn)), null, "ac"),
    tile("AC fed back", kwh(sum((item) => item.kwhOut))),
    tile("Unassigned", kwh(sum((item) => item.unassignedKwh ?? null)), "of no vehicle"),
    tile("Coverage", coverage(mean)),
    tile("Withheld", kwh(suspect), resets ? count(resets, "reset") : "no reset", suspect || resets ? "bad" : ""),
  ];
}

/**
 * @param {EnergyItem[]} items
 * @param {(item: EnergyItem) => string} name
 * @param {boolean} isVehicle
 */
function energyTable(items, name, isVehicle) {
  /** @type {[string, string?][]} */
  const columns = [
    ["From"], ...(isVehicle ? /** @type {[string, string][]} */ ([["AC", "number"], ["DC in", "number"], ["DC out", "number"]]) : /** @type {[string, string][]} */ ([["AC drawn", "number"], ["AC fed back", "number"]])),
    ["Coverage", "number"], ["Interpolated", "number"], ["Withheld", "number"], ["Resets", "number"],
  ];
  const rows = items.map((item) => [
    name(item),
    ...(isVehicle ? [kwh(item.kwhAc)] : []),
    kwh(item.kwhIn),
    kwh(item.kwhOut),
    coverage(item.coverage),
    h("span", isInterpolated(item) ? { class: "mark" } : {}, kwh(item.boundaryKwh)),
    h("span", item.suspectKwh ? { class: "bad" } : {}, kwh(item.suspectKwh)),
    item.resets,
  ]);
  return table("Energy table", columns, rows);
}

// The fleet now: what vehicles do, the power and energy of today, and every device in one list.

import { get, saveCsv } from "./api.js";
import { csvButton, field, fill, h, select, setText, tile } from "./dom.js";
import { age, clock, count, coverage, kw, kwh, number, percent } from "./format.js";
import { activityOf, hasReported, live, neverReported, powerOf } from "./live.js";
import { declarationOf, declared, intervalOf, register, sites } from "./register.js";
import { startOfDay, today, viewerZone } from "./time.js";
import { VirtualTable } from "./virtual-table.js";

/** @import {Activity, LiveRow} from "./live.js" */
/** @import {Column} from "./virtual-table.js" */
/** @import {Schemas} from "../types" */
/** @typedef {"vehicles" | "meters"} Kind */

/** @type {[Activity, string][]} */
const ACTIVITIES = [["charging", "Charging"], ["driving", "Driving"], ["idle", "Idle"], ["silent", "Silent"]];
const ENERGY_EVERY_MS = 60_000;
const DRAW_EVERY_MS = 500;

/** What the list shows; kept while other views are open. */
const wanted = {
  kind: /** @type {Kind} */ ("vehicles"),
  text: "",
  site: "",
  activity: /** @type {Activity | ""} */ (""),
  order: { key: "id", down: false },
};

/** @param {LiveRow} row */
const idOf = (row) => ("vehicleId" in row ? row.vehicleId : row.meterId);
/** @type {import("./app.js").View} */
export function fleet(main, _query, signal) {
  const tiles = Object.fromEntries(ACTIVITIES.map(([activity, text]) => [activity, activityTile(activity, text, update)]));
  const power = h("dl");
  const energy = h("dl", { class: "tiles" });
  const energyNote = h("p", { class: "note" }, "Loading …");
  const listed = h("p", { class: "note", id: "listed" });
  const list = h("div");
  let table = tableOf(wanted.kind, update);

  const siteField = h("span");
  const showSites = () => {
    if (!sites().length) return;
    const options = /** @type {[string, string][]} */ ([["", "All sites"], ...sites().map((site) => [site, site])]);
    fill(siteField, field("Site", select(options, wanted.site, (site) => { wanted.site = site; update(); void showEnergy(); })));
  };
  const search = h("input", { type: "search", value: wanted.text, placeholder: "Name or id", oninput: () => { wanted.text = search.value; update(); } });
  const save = csvButton("Latest states as CSV", () => saveCsv(`/v1/live/${wanted.kind}`, { query: { neverReported: true } }));
  const kinds = select([["vehicles", "Vehicles"], ["meters", "Meters"]], wanted.kind, (kind) => {
    wanted.kind = /** @type {Kind} */ (kind);
    wanted.order = { key: "id", down: false };
    table = tableOf(wanted.kind, update);
    fill(list, table.element);
    update();
  });

  fill(
    main,
    h("h1", { class: "unseen" }, "Fleet now"),
    h("section", { "aria-label": "Vehicles by activity", class: "tiles" }, ...Object.values(tiles).map((one) => one.element)),
    h(
      "div",
      { class: "card now" },
      h("section", { "aria-label": "Power now" }, h("h2", {}, "Now"), power),
      h("section", { "aria-label": "Energy today" }, h("h2", {}, "Today"), energy, energyNote),
    ),
    h(
      "section",
      { "aria-label": "Devices", class: "card" },
      h("div", { class: "controls" }, field("Show", kinds), field("Search", search), siteField, save, listed),
      list,
    ),
  );
  fill(list, table.element);
  showSites();

  function update() {
    const text = wanted.text.toLowerCase();
    const counts = { charging: 0, driving: 0, idle: 0, silent: 0 };
    const inSite = (/** @type {LiveRow} */ row) => !wanted.site || declarationOf(row)?.site === wanted.site;
    for (const row of all("vehicles")) if (inSite(row)) counts[activityOf(row, intervalOf(row))]++;
    for (const [activity] of ACTIVITIES) tiles[activity]?.show(counts[activity]);
    showPower(all("meters").filter(inSite));
    const listedRows = all(wanted.kind);
    const rows = listedRows.filter(
      (row) =>
        inSite(row) &&
        (!text || idOf(row).toLowerCase().includes(text) || declarationOf(row)?.name?.toLowerCase().includes(text)) &&
        (!wanted.activity || wanted.kind === "meters" || activityOf(row, intervalOf(row)) === wanted.activity),
    );
    table.show(rows);
    if (live.complete && !performance.getEntriesByName("fleet-shown").length) requestAnimationFrame(() => performance.mark("fleet-shown"));
    const without = listedRows.length - live[wanted.kind].size;
    const note = without ? `, ${number(without, 0)} never reported` : "";
    setText(listed, live.complete ? `${number(rows.length, 0)} of ${number(listedRows.length, 0)} ${wanted.kind}${note}` : "Loading …");
  }

  /** @param {LiveRow[]} meters */
  function showPower(meters) {
    const known = meters.filter((row) => !row.silent && powerOf(row, intervalOf(row)) !== null);
    const sum = known.reduce((total, row) => total + (powerOf(row, intervalOf(row)) ?? 0), 0);
    const silent = meters.filter((row) => row.silent).length;
    const note = `${count(known.length, "meter")}${silent ? `, without ${number(silent, 0)} silent` : ""}`;
    fill(power, tile("AC power", known.length ? kw(sum) : "–", note, "ac"));
  }

  async function showEnergy() {
    const zone = viewerZone();
    const site = wanted.site;
    const query = /** @type {const} */ ({
      of: site ? "sites" : "fleet", bucket: "total", tz: zone, from: startOfDay(today(zone), zone).toISOString(), ...(site ? { site } : {}),
    });
    try {
      const asked = get("/v1/analytics/efficiency", { query: { of: query.of, from: query.from, ...(site ? { site } : {}) }, signal })
        .then((answer) => answer.items[0], (error) => `not available: ${error.message}`);
      const [page, compared] = await Promise.all([get("/v1/analytics/energy", { query, signal }), asked]);
      const item = page.items[0];
      if (!item || site !== wanted.site) return;
      fill(
        energy,
        tile("AC drawn", kwh(item.kwhIn), item.kwhOut ? `${kwh(item.kwhOut)} fed back` : null, "ac"),
        tile("DC, net", kwh(item.kwhDc), "charged less driven", "dc"),
        ...efficiencyTiles(compared),
        tile("Coverage", coverage(item.coverage), item.suspectKwh ? `${kwh(item.suspectKwh)} withheld` : null),
        tile("Unassigned AC", kwh(item.unassignedKwh), "of no vehicle"),
      );
      const until = typeof compared !== "object" || compared.efficiency === null ? "" : ` Losses and efficiency as of ${clock(compared.asOf, zone)}.`;
      setText(energyNote, `As of ${clock(item.to, zone)}.${until}`);
    } catch (error) {
      if (!signal.aborted) setText(energyNote, `Not available: ${/** @type {Error} */ (error).message}`);
    }
  }

  let due = 0;
  let drawn = 0;
  const draw = () => {
    due ||= window.setTimeout(() => {
      due = 0;
      drawn = Date.now();
      update();
    }, Math.max(0, drawn + DRAW_EVERY_MS - Date.now()));
  };
  live.addEventListener("rows", draw, { signal });
  register.addEventListener("change", () => { showSites(); update(); }, { signal });
  const aging = setInterval(() => table.draw(), 1000);
  const counting = setInterval(showEnergy, ENERGY_EVERY_MS);
  signal.addEventListener("abort", () => { clearInterval(aging); clearInterval(counting); clearTimeout(due); });
  update();
  // The picture comes first: energy is worked out from all devices, and would delay it.
  if (live.complete) void showEnergy();
  else live.addEventListener("complete", () => void showEnergy(), { signal });
}

/**
 * The devices of a kind: those that have reported, and the declared ones that never did.
 * @param {Kind} kind
 */
function all(kind) {
  const rows = [...live[kind].values()];
  for (const id of declared[kind].keys()) if (!live[kind].has(id)) rows.push(neverReported(kind, id));
  return rows;
}

/**
 * Losses and efficiency, or why there are none.
 * @param {Schemas["EfficiencyItem"] | string | undefined} item or the reason
 */
function efficiencyTiles(item) {
  if (typeof item === "object" && item.efficiency !== null) {
    const part = `of ${percent(item.compared)} of the AC`;
    return [tile("Losses", kwh(item.lossKwh), part), tile("Efficiency", percent(item.efficiency, 1), part)];
  }
  const reason = typeof item === "string" ? item : `not available: ${item?.kwhAc ? "no quarter hour has both sides" : "no AC was drawn"}`;
  return [tile("Losses", kwh(null), reason), tile("Efficiency", percent(null), reason)];
}

/**
 * A number of vehicles that filters the list when it is pressed.
 * @param {Activity} activity
 * @param {string} text
 * @param {() => void} onChange
 */
function activityTile(activity, text, onChange) {
  const shown = h("span", { class: "count" }, "–");
  const element = h("button", { type: "button", class: `tile activity ${activity}`, "data-activity": activity, "aria-pressed": wanted.activity === activity, onclick: press }, shown, h("span", {}, text));
  function press() {
    wanted.activity = wanted.activity === activity ? "" : activity;
    for (const other of element.parentElement?.querySelectorAll("button") ?? [])
      other.setAttribute("aria-pressed", String(other.dataset.activity === wanted.activity));
    onChange();
  }
  element.setAttribute("aria-pressed", String(wanted.activity === activity));
  return { element, show: (/** @type {number} */ n) => setText(shown, live.complete ? number(n, 0) : "–") };
}

/**
 * @param {Kind} kind
 * @param {() => void} onOrder
 */
function tableOf(kind, onOrder) {
  return kind === "vehicles"
    ? new VirtualTable("Vehicles", VEHICLE_COLUMNS, idOf, wanted.order, onOrder)
    : new VirtualTable("Meters", METER_COLUMNS, idOf, wanted.order, onOrder);
}

/**
 * The device's link with its name, made once: the cell is always that of the same device.
 * @param {Kind} kind
 * @returns {Column<LiveRow>}
 */
function deviceColumn(kind) {
  return {
    key: "id",
    title: kind === "vehicles" ? "Vehicle" : "Meter",
    className: "device",
    value: idOf,
    show(cell, row) {
      if (!cell.firstChild) cell.append(h("a", { href: `#/${kind}/${idOf(row)}` }, idOf(row)), h("span", { class: "note" }));
      const known = declarationOf(row);
      setText(/** @type {Element} */ (cell.lastChild), [known?.name, known?.site].filter(Boolean).join(" · "));
    },
  };
}

/**
 * A column of text, with the class of its heading.
 * @param {string} key
 * @param {string} title
 * @param {string} className
 * @param {(row: LiveRow) => number | string | null} value
 * @param {(row: LiveRow) => string} text
 * @returns {Column<LiveRow>}
 */
const column = (key, title, className, value, text) => ({ key, title, className, value, show: (cell, row) => setText(cell, text(row)) });

/** @param {LiveRow} row */
const powerNow = (row) => powerOf(row, intervalOf(row));
/** @param {LiveRow} row */
const ageNow = (row) => (hasReported(row) ? live.age(row) : null);
const AGE = column("age", "Age", "number", ageNow, (row) => age(ageNow(row)));
const POWER = column("power", "Power", "number", powerNow, (row) => kw(powerNow(row)));

/** @type {Column<LiveRow>[]} */
const VEHICLE_COLUMNS = [
  deviceColumn("vehicles"),
  {
    key: "activity",
    title: "State",
    className: "state",
    value: (row) => activityOf(row, intervalOf(row)),
    show(cell, row) {
      if (!cell.firstChild) cell.append(h("span", { class: "dot", "aria-hidden": true }), h("span"));
      const activity = activityOf(row, intervalOf(row));
      cell.dataset.activity = activity;
      setText(/** @type {Element} */ (cell.lastChild), hasReported(row) ? activity : "never reported");
    },
  },
  {
    key: "soc",
    title: "Charge",
    className: "soc",
    value: (row) => ("soc" in row ? row.soc : null),
    show(cell, row) {
      const soc = "soc" in row ? row.soc : null;
      if (!cell.firstChild) cell.append(h("meter", { min: 0, max: 100, "aria-hidden": true }), h("span"));
      const meter = /** @type {HTMLMeterElement} */ (cell.firstChild);
      meter.hidden = soc === null;
      if (meter.value !== soc) meter.value = soc ?? 0;
      setText(/** @type {Element} */ (cell.lastChild), soc === null ? "–" : `${number(soc, 0)} %`);
    },
  },
  POWER,
  column("temperature", "Battery", "number wide", (row) => ("batteryTemp" in row ? row.batteryTemp : null), (row) =>
    "batteryTemp" in row && row.batteryTemp !== null ? `${number(row.batteryTemp)} °C` : "–"),
  AGE,
];

/** @type {Column<LiveRow>[]} */
const METER_COLUMNS = [
  deviceColumn("meters"),
  column("silent", "State", "state", (row) => (row.silent ? 1 : 0), (row) => (!hasReported(row) ? "never reported" : row.silent ? "silent" : "reports")),
  POWER,
  column("voltage", "Voltage", "number wide", (row) => ("voltage" in row ? row.voltage : null), (row) =>
    "voltage" in row && row.voltage !== null ? `${number(row.voltage)} V` : "–"),
  AGE,
];

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

/** What the list shows; kept while other views are open. An address with a question replaces it. */
const wanted = {
  kind: /** @type {Kind} */ ("vehicles"),
  text: "",
  site: "",
  activity: /** @type {Activity | ""} */ (""),
  order: { key: "id", down: false },
};

/** @param {URLSearchParams} query */
function readAddress(query) {
  if (!query.size) return;
  wanted.kind = query.get("show") === "meters" ? "meters" : "vehicles";
  wanted.text = query.get("search") ?? "";
  wanted.site = query.get("site") ?? "";
  wanted.activity = ACTIVITIES.find(([activity]) => activity === query.get("state"))?.[0] ?? "";
  wanted.order = { key: "id", down: false };
}

/** Let the address name what is shown, so that it can be kept or sent; the view stays. */
function writeAddress() {
  const query = new URLSearchParams();
  if (wanted.kind !== "vehicles") query.set("show", wanted.kind);
  for (const [name, value] of [["search", wanted.text], ["site", wanted.site], ["state", wanted.activity]]) if (value) query.set(name, value);
  history.replaceState(null, "", `#/fleet${query.size ? `?${query}` : ""}`);
}

/** @param {LiveRow} row */
const idOf = (row) => ("vehicleId" in row ? row.vehicleId : row.meterId);
/** @type {import("./app.js").View} */
export function fleet(main, query, signal) {
  readAddress(query);
  const tiles = Object.fromEntries(ACTIVITIES.map(([activity, text]) => [activity, activityTile(activity, text, change)]));
  const power = h("dl");
  const energy = h("dl", { class: "tiles" });
  const energyNote = h("p", { class: "note" }, "Loading …");
  const listed = h("p", { class: "note", id: "listed" });
  const list = h("div");
  let table = tableOf(wanted.kind, update);

  const siteField = h("span");
  const showSites = () => {
    const known = new Set(sites());
    if (wanted.site) known.add(wanted.site); // of an address
    if (!known.size) return;
    const options = /** @type {[string, string][]} */ ([["", "All sites"], ...[...known].map((site) => [site, site])]);
    fill(siteField, field("Site", select(options, wanted.site, (site) => { wanted.site = site; change(); void showEnergy(); })));
  };
  const search = h("input", { type: "search", value: wanted.text, placeholder: "Name or id", oninput: () => { wanted.text = search.value; change(); } });
  const save = csvButton("Latest states as CSV", () => saveCsv(`/v1/live/${wanted.kind}`, { query: { neverReported: true } }));
  const kinds = select([["vehicles", "Vehicles"], ["meters", "Meters"]], wanted.kind, (kind) => {
    wanted.kind = /** @type {Kind} */ (kind);
    wanted.order = { key: "id", down: false };
    table = tableOf(wanted.kind, update);
    fill(list, table.element);
    change();
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
  writeAddress();

  function change() {
    writeAddress();
    update();
  }

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
        ...efficiencyTiles(compared, item.kwhIn),
        tile("Coverage", coverage(item.coverage), item.suspectKwh ? `${kwh(item.suspectKwh)} withheld` : null),
        tile("Unassigned AC", kwh(item.unassignedKwh), "of no vehicle"),
      );
      const until = typeof compared !== "object" || compared.efficiency === null ? "" : ` Losses and efficiency as of ${clock(compared.asOf, zone)}.`;
      setText(energyNote, `As of ${clock(item.to, zone)}.${until} Times in ${zone}.`);
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
 * @param {number | null} drawn kWh AC of the same time
 */
function efficiencyTiles(item, drawn) {
  if (typeof item === "object" && item.efficiency !== null) {
    const part = `of ${percent(item.compared)} of the AC`;
    return [tile("Losses", kwh(item.lossKwh), part), tile("Efficiency", percent(item.efficiency, 1), part)];
  }
  if (typeof item === "string") return [tile("Losses", kwh(null), item), tile("Efficiency", percent(null), item)];
  const missing = item?.kwhAc ? "no quarter hour has both sides" : drawn ? "not summarized yet" : "no AC was drawn";
  const reason = `not available: ${missing}`;
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
    show(cell, row) {
      if (!cell.firstChild) cell.append(h("a", { href: `#/${kind}/${idOf(row)}` }, idOf(row)), h("span", { class: "note" }, h("span"), h("span", { class: "place" })));
      const { name = null, site = null } = declarationOf(row) ?? {};
      const [first, second] = /** @type {Element} */ (cell.lastChild).children;
      setText(/** @type {Element} */ (first), name ?? site ?? "");
      setText(/** @type {Element} */ (second), name && site ? ` · ${site}` : ""); // a phone has no room for it
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
  {
    key: "silent",
    title: "State",
    className: "state",
    value: (row) => (row.silent ? 1 : 0),
    show(cell, row) {
      cell.dataset.activity = row.silent ? "silent" : "idle";
      setText(cell, !hasReported(row) ? "never reported" : row.silent ? "silent" : "reports");
    },
  },
  POWER,
  column("voltage", "Voltage", "number wide", (row) => ("voltage" in row ? row.voltage : null), (row) =>
    "voltage" in row && row.voltage !== null ? `${number(row.voltage)} V` : "–"),
  AGE,
];

// Open alarms, and their acknowledgement by a person.

import { get, may, readOwnKey, saveCsv, send } from "./api.js";
import { announce, csvButton, fill, h, table } from "./dom.js";
import { dateTime, quantity } from "./format.js";
import { live } from "./live.js";
import { showRules } from "./rules.js";
import { viewerZone } from "./time.js";

/** @import {Schemas} from "../types" */
/** @typedef {Schemas["Alarm"]} Alarm */

/** The keeper judges the rules every 15 s, and not every alarm need come by the stream. */
const EVERY_MS = 15_000;
const OPEN = /** @type {const} */ ({ state: "open", limit: 1000 });

/** @type {import("./app.js").View} */
export async function alarms(main, _query, signal) {
  const result = h("div", { class: "stack" }, h("p", { class: "note", role: "status" }, "Loading …"));
  const rules = h("section", { class: "card", "aria-label": "Rules" });
  fill(main, h("h1", {}, "Alarms"), result);
  const key = await readOwnKey();
  const mayAcknowledge = may(key, "assign");
  let shown = "";
  const show = async () => {
    try {
      const page = await get("/v1/alarms", { query: OPEN, signal });
      const found = JSON.stringify(page.items);
      if (found === shown) return; // so that the focus stays where it is
      shown = found;
      fill(result, page.items.length ? alarmTable(page.items, mayAcknowledge ? acknowledge : null) : h("p", { class: "note" }, "No alarm is open."));
    } catch (error) {
      shown = "";
      if (!signal.aborted) fill(result, h("p", { class: "problem", role: "alert" }, /** @type {Error} */ (error).message));
    }
  };
  /** @param {Alarm} alarm */
  const acknowledge = async (alarm) => {
    try {
      await send(`v1/alarms/${alarm.id}/acknowledge`, { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
      announce("Acknowledged");
    } catch (error) {
      announce(/** @type {Error} */ (error).message);
    }
    await show();
  };
  live.addEventListener("alarm", () => void show(), { signal });
  const timer = setInterval(() => void show(), EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  await show();
  if (!may(key, "read", true)) return; // a limited key sees no rules
  main.append(rules);
  await showRules(rules, may(key, "admin"), signal);
}

/**
 * @param {Alarm[]} items
 * @param {((alarm: Alarm) => void) | null} acknowledge
 */
function alarmTable(items, acknowledge) {
  const zone = viewerZone();
  /** @type {[string, string?][]} */
  const columns = [["Device"], ["Alarm", "text"], ["Acknowledged"], ["Severity"], ["Site"], ["Since"], ["Value", "number"], ["Bound", "number"]];
  const rows = items.map((alarm) => [
    alarm.device ? h("a", { href: `#/${alarm.kind}s/${alarm.device}` }, alarm.device) : alarm.rule,
    alarm.message.replace(`${alarm.kind} ${alarm.device}: `, ""), // the first column has the device
    alarm.acknowledgedAt
      ? `${dateTime(alarm.acknowledgedAt, zone)} ${alarm.acknowledgedBy ?? ""}`
      : acknowledge && h("button", { type: "button", "aria-label": `Acknowledge: ${alarm.message}`, onclick: () => acknowledge(alarm) }, "Acknowledge"),
    h("span", { class: alarm.severity === "critical" ? "bad" : "mark" }, alarm.severity),
    alarm.site ?? "–",
    dateTime(alarm.raisedAt, zone),
    quantity(alarm.value, alarm.unit),
    quantity(alarm.bound, alarm.unit),
  ]);
  const csv = csvButton("Open alarms as CSV", () => saveCsv("/v1/alarms", { query: OPEN }));
  const heading = h("div", { class: "heading" }, h("h2", {}, "Open"), csv);
  return h("section", { class: "card", "aria-label": "Open alarms" }, heading, table("Open alarms table", columns, rows), h("p", { class: "note" }, `Times in ${zone}.`));
}

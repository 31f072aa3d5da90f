// Charging sessions as a table with sums and marks.

import { h, table } from "./dom.js";
import { count, coverage, dateTime, energy, kw, kwh, number, percent } from "./format.js";

/** @import {Schemas} from "../types" */
/** @typedef {Schemas["Session"]} Session */

/**
 * What limits a session's figures, in words.
 * @param {Session} session
 */
function marks(session) {
  return [
    session.openStart && "may have begun earlier",
    session.openEnd && "may go on",
    session.coverage < 0.999 && `${coverage(session.coverage)} covered`,
    session.suspectKwh > 0 && `${kwh(session.suspectKwh)} withheld`,
    session.resets > 0 && count(session.resets, "reset"),
    session.dividedKwh > 0 && `${kwh(session.dividedKwh)} divided by an assignment`,
  ].filter(Boolean).join(", ");
}

/** Losses, of sessions with both sides. @param {Session} session */
function losses({ kwhAc, kwhDc }) {
  return kwhAc === null || kwhDc === null ? null : kwhAc - kwhDc;
}

/**
 * Sums over sessions. Losses are of those that have both sides. The efficiency is the mean of theirs by AC energy, so that it is made
 * of the same compared time as theirs.
 * @param {Session[]} items
 */
export function sumsOf(items) {
  const sum = (/** @type {(number | null)[]} */ values) => values.reduce((/** @type {number} */ total, value) => total + (value ?? 0), 0);
  const both = items.filter((item) => losses(item) !== null);
  const drew = items.filter((item) => item.efficiency !== null && (item.kwhAc ?? 0) > 0);
  const ac = sum(drew.map((item) => item.kwhAc));
  return {
    ac: sum(items.map((item) => item.kwhAc)),
    dc: sum(items.map((item) => item.kwhDc)),
    losses: both.length ? sum(both.map(losses)) : null,
    efficiency: ac > 0 ? sum(drew.map((item) => (item.efficiency ?? 0) * (item.kwhAc ?? 0))) / ac : null,
  };
}

/**
 * @param {Session[]} items
 * @param {string} zone
 */
export function sessionTable(items, zone) {
  const sums = sumsOf(items);
  /** @type {[string, string?][]} */
  const columns = [
    ["Begin"], ["Duration", "number"], ["Vehicle"], ["Meter"], ["Site", "site"], ["AC, kWh", "number"], ["DC, kWh", "number"], ["Losses, kWh", "number"],
    ["Efficiency", "number"], ["Peak", "number"], ["Charge", "number"], ["Note", "mark"],
  ];
  const rows = items.map((item) => [
    dateTime(item.from, zone),
    duration(Date.parse(item.to) - Date.parse(item.from)),
    item.vehicleId ? h("a", { href: `#/vehicles/${item.vehicleId}` }, item.vehicleId) : "none",
    item.meterIds.length ? h("span", {}, ...item.meterIds.flatMap((id, n) => [n ? ", " : "", h("a", { href: `#/meters/${id}` }, id)])) : "none",
    item.site ?? "–",
    energy(item.kwhAc),
    energy(item.kwhDc),
    energy(losses(item)),
    percent(item.efficiency, 1),
    kw(item.peakKw),
    item.socFrom === null && item.socTo === null ? "–" : `${number(item.socFrom, 0)} → ${number(item.socTo, 0)} %`,
    marks(item),
  ]);
  const last = [count(items.length, "session"), "", "", "", "", energy(sums.ac), energy(sums.dc), energy(sums.losses), percent(sums.efficiency, 1), "", "", ""];
  return table("Sessions table", columns, rows, last);
}

/** @param {number} ms */
function duration(ms) {
  const minutes = Math.round(ms / 60_000);
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")} h`;
}

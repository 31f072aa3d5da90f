// What operators have declared about devices: names, sites, intervals and time zones, read once when somebody signs in.

import { get } from "./api.js";
import { compareIds } from "./order.js";

/** @import {Schemas} from "../types" */
/** @typedef {Schemas["Device"]} Declared */

/** @type {{vehicles: Map<string, Declared>, meters: Map<string, Declared>}} */
export const declared = { vehicles: new Map(), meters: new Map() };

/** Dispatches `change` when declarations have been read. */
export const register = new EventTarget();

/** @param {AbortSignal} signal */
export async function readRegister(signal) {
  for (const kind of /** @type {const} */ (["vehicles", "meters"])) {
    declared[kind].clear();
    /** @type {string | null | undefined} */
    let cursor;
    do {
      const page = await get(`/v1/devices/${kind}`, { query: { limit: 1000, cursor }, signal });
      for (const device of page.items) declared[kind].set(device.id, device);
      cursor = page.nextCursor;
    } while (cursor);
    register.dispatchEvent(new Event("change"));
  }
}

/** The sites of all declared devices, in order. */
export function sites() {
  const found = new Set();
  for (const kind of [declared.vehicles, declared.meters]) for (const device of kind.values()) if (device.site) found.add(device.site);
  return /** @type {string[]} */ ([...found].sort(compareIds));
}

/** @param {import("./live.js").LiveRow} row */
export function declarationOf(row) {
  return "vehicleId" in row ? declared.vehicles.get(row.vehicleId) : declared.meters.get(row.meterId);
}

/** The declared interval of a device, s. @param {import("./live.js").LiveRow} row */
export function intervalOf(row) {
  return declarationOf(row)?.intervalS ?? undefined;
}

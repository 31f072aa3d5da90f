// The live picture: the latest state of every device that the key may see, kept current by the stream of the API.

import { Refused, send } from "./api.js";

/** @import {Schemas} from "../types" */
/** @typedef {Schemas["LiveVehicle"]} LiveVehicle */
/** @typedef {Schemas["LiveMeter"]} LiveMeter */
/** @typedef {LiveVehicle | LiveMeter} LiveRow */
/** @typedef {{at: string, vehicles: LiveVehicle[], meters: LiveMeter[], more?: boolean}} Picture */

// The API sends something at least every 15 s; a longer silence is a dead connection.
const SILENCE_MS = 40_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

/**
 * Dispatches `complete` after the first picture, `rows` when rows have changed, `alarm` when an alarm has, and `state` when
 * the connection has: `lost` is one without the API, `stale` one whose API has no database.
 */
class Live extends EventTarget {
  /** @type {Map<string, LiveVehicle>} */
  vehicles = new Map();
  /** @type {Map<string, LiveMeter>} */
  meters = new Map();
  /** @type {"off" | "connecting" | "live" | "lost" | "stale"} */
  state = "off";
  /** Whether the first picture is complete. */
  complete = false;
  /** Since when the picture is not kept current, ms. */
  lostAt = 0;
  /** How often changes are sent, s: less often than every second while there are too many for all viewers. */
  everyS = 1;
  /** Time of the server minus ours, ms. */
  #ahead = 0;
  #lastId = "";
  /** @type {AbortController | null} */
  #stop = null;

  /** Now by the clock of the server, ms. */
  now() {
    return Date.now() + this.#ahead;
  }

  /**
   * Seconds since the device's last reading.
   * @param {LiveRow} row
   */
  age(row) {
    return Math.max(0, (this.now() - Date.parse(row.timestamp)) / 1000);
  }

  start() {
    this.stop();
    this.#stop = new AbortController();
    this.#set("connecting");
    void this.#run(this.#stop.signal);
  }

  stop() {
    this.#stop?.abort();
    this.#stop = null;
    this.vehicles.clear();
    this.meters.clear();
    this.complete = false;
    this.#lastId = "";
    this.#set("off");
  }

  /**
   * Keep the stream open: connect again when it ends, at first soon, then less often.
   * @param {AbortSignal} stopped
   */
  async #run(stopped) {
    let wait = FIRST_WAIT_MS;
    while (!stopped.aborted) {
      const began = Date.now();
      try {
        await this.#read(stopped);
      } catch (error) {
        if (stopped.aborted) return;
        if (error instanceof Refused && (error.status === 401 || error.status === 403)) return this.#set("off");
      }
      if (stopped.aborted) return;
      this.#set("lost");
      if (Date.now() - began > LONGEST_WAIT_MS) wait = FIRST_WAIT_MS;
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  /**
   * Read one connection to its end. What was missed comes first: the API knows it by the id of the last event.
   * @param {AbortSignal} stopped
   */
  async #read(stopped) {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    const arrived = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    try {
      const headers = { Accept: "text/event-stream", ...(this.#lastId ? { "Last-Event-ID": this.#lastId } : {}) };
      const response = await send("v1/live/stream", { headers, signal: AbortSignal.any([stopped, silence.signal]) });
      if (!response.body) return;
      this.everyS = 1;
      let isFirst = true;
      for await (const event of events(response.body, arrived)) {
        if (event.id) this.#lastId = event.id;
        if (event.name === "snapshot" || event.name === "changes") {
          this.#take(JSON.parse(event.data), event.name === "snapshot" && isFirst);
          isFirst = false;
        } else if (event.name === "pace") this.#slow(JSON.parse(event.data).everyS);
        else if (event.name === "database") this.#set(JSON.parse(event.data).available ? "live" : "stale");
        else if (event.name === "alarm") this.dispatchEvent(new Event("alarm"));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * @param {Picture} picture
   * @param {boolean} isWhole it begins a new picture
   */
  #take(picture, isWhole) {
    this.#ahead = Date.parse(picture.at) - Date.now();
    if (isWhole) {
      this.vehicles.clear();
      this.meters.clear();
    }
    for (const row of picture.vehicles) this.vehicles.set(row.vehicleId, row);
    for (const row of picture.meters) this.meters.set(row.meterId, row);
    if (picture.more) return;
    this.#set("live");
    if (!this.complete) {
      this.complete = true;
      this.dispatchEvent(new Event("complete"));
    }
    this.dispatchEvent(new Event("rows"));
  }

  /** @param {number} everyS */
  #slow(everyS) {
    this.everyS = everyS;
    this.dispatchEvent(new Event("state"));
  }

  /** @param {Live["state"]} state */
  #set(state) {
    if (this.state === state) return;
    if (this.state === "live") this.lostAt = Date.now();
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}

export const live = new Live();

/**
 * The row of a declared device that never reported.
 * @param {"vehicles" | "meters"} kind
 * @param {string} id
 */
export function neverReported(kind, id) {
  const none = { soc: null, batteryTemp: null, voltage: null, powerKw: null, kwhDeliveredDc: null, kwhConsumedAc: null, timestamp: "", silent: true };
  return /** @type {LiveRow} */ (/** @type {unknown} */ (kind === "vehicles" ? { ...none, vehicleId: id } : { ...none, meterId: id }));
}

/** @param {LiveRow} row */
export function hasReported(row) {
  return row.timestamp !== "";
}

/**
 * The events of a stream (HTML, section 9.2), without those that have no data.
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {() => void} onBytes
 */
async function* events(body, onBytes) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      onBytes();
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = parse(block);
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** @param {string} block */
function parse(block) {
  const event = { name: "message", id: "", data: "" };
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.startsWith("event:")) event.name = value;
    else if (line.startsWith("id:")) event.id = value;
    else if (line.startsWith("data:")) event.data += (event.data ? "\n" : "") + value;
  }
  return event;
}

/**
 * The power of a device, kW: what it reported, else the mean of its last interval, which is a minute unless declared.
 * @param {LiveRow} row
 * @param {number} [intervalS]
 */
export function powerOf(row, intervalS = 60) {
  if (row.powerKw !== null && row.powerKw !== undefined) return row.powerKw;
  const energy = "vehicleId" in row ? row.kwhDeliveredDc : row.kwhConsumedAc;
  return energy === null || energy === undefined ? null : (energy * 3600) / intervalS;
}

/** @typedef {"charging" | "driving" | "idle" | "silent"} Activity */

/** Less is stand-by, as in the sessions of the API. */
const FLOW_KW = 0.1;

/**
 * What a vehicle does; `driving` is energy out of its battery.
 * @param {LiveRow} row
 * @param {number} [intervalS]
 * @returns {Activity}
 */
export function activityOf(row, intervalS) {
  if (row.silent) return "silent";
  const power = powerOf(row, intervalS) ?? 0;
  return power >= FLOW_KW ? "charging" : power <= -FLOW_KW ? "driving" : "idle";
}

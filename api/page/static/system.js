// The state of the platform: every process by its own report, the database, and the arrival of readings.

import { get, may, readOwnKey, send } from "./api.js";
import { announce, fill, h, table, tile } from "./dom.js";
import { age, number } from "./format.js";
import { live } from "./live.js";

/** @import {Schemas} from "../types" */
/** @typedef {Schemas["Process"]} Process */
/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */

const EVERY_MS = 5_000;
const RECENT_S = 60;
const FEW_DAYS = 30;

/** @type {import("./app.js").View} */
export async function system(main, _query, signal) {
  const platform = h("dl", { class: "tiles" });
  const processes = h("div", { class: "stack" });
  const arrival = h("dl", { class: "tiles" });
  const service = h("dl", { class: "tiles" });
  // A key that is limited to some devices has neither the state of the platform nor metrics.
  const seesAll = may(await readOwnKey(), "read", true);
  if (signal.aborted) return;
  /** @param {string} name @param {Element} content */
  const card = (name, content) => h("section", { class: "card", "aria-label": name }, h("h2", {}, name), content);
  fill(
    main,
    h("h1", {}, "System"),
    seesAll && card("Platform", platform),
    seesAll && card("Processes", processes),
    card("Arrival of readings", arrival),
    card("This API process", service),
    h("p", { class: "note" }, h("a", { href: "docs" }, "Documentation of the API")),
  );
  let told = "";
  /** @type {{at: number, samples: Sample[]} | null} */
  let before = null;
  const showPlatform = async () => {
    try {
      const found = await get("/v1/system", { signal });
      fill(platform, ...platformTiles(found));
      showProcesses(processes, found.processes);
      const missing = found.missing.map((program) => `No active ${program} reports.`).join(" ");
      if (missing !== told) announce(missing || "Bridge and keeper report.");
      told = missing;
    } catch (error) {
      // The last rows would look current, but they are not.
      if (!signal.aborted) fill(processes, h("p", { class: "problem" }, /** @type {Error} */ (error).message));
      if (!signal.aborted) fill(platform);
    }
  };
  const showProcess = async () => {
    const [ready, text] = await Promise.all([
      get("/readyz", { signal }).then(() => "ready", (error) => error.message),
      seesAll ? send("metrics", { signal }).then((response) => response.text(), () => "") : "",
    ]);
    if (signal.aborted) return;
    // Without its metrics, such as while the key cannot be checked, zeros would look like figures.
    const now = text ? { at: performance.now(), samples: samplesOf(text) } : null;
    fill(service, databaseTile(ready), ...(now ? process(now, before) : []));
    before = now;
  };
  const show = async () => {
    await Promise.all([showProcess(), seesAll && showPlatform()]);
  };
  const showArrivals = () => fill(arrival, ...arrivals());
  const timers = [setInterval(() => void show(), EVERY_MS), setInterval(showArrivals, 1000)];
  signal.addEventListener("abort", () => timers.forEach(clearInterval));
  live.addEventListener("complete", showArrivals, { signal });
  showArrivals();
  await show();
}

/** @param {Schemas["System"]} found */
function platformTiles(found) {
  /** @param {"bridge" | "keeper"} program */
  const running = (program) => {
    const versions = [...new Set(found.processes.filter((one) => one.program === program && one.active && !one.stale).map((one) => one.version))];
    return found.missing.includes(program) ? "missing" : `version ${versions.join(", ")}`;
  };
  const days = (/** @type {number | null} */ value) => (value === null ? "–" : value > 3650 ? "years" : `${number(value, 0)} d`);
  const { critical, warning, info } = found.openAlarms;
  const soon = (/** @type {number | null} */ value) => (value !== null && value < FEW_DAYS ? "bad" : "");
  const keeper = found.processes.find((one) => one.program === "keeper" && one.active && !one.stale);
  return [
    tile("Readings", `${number(found.readingsPerS)} /s`, "committed by bridges and APIs"),
    tile("Bridge", running("bridge"), found.bridgesLost ? `${number(found.bridgesLost, 0)} lost` : null, found.bridgesLost !== 0 ? "bad" : ""),
    tile("Keeper", running("keeper"), keeper ? `summaries ${seconds(keeper.quartersBehindS)} behind` : null, keeper ? "" : "bad"),
    tile("Open alarms", number(critical + warning + info, 0), `${number(critical, 0)} critical`, critical ? "bad" : ""),
    tile("Database", found.databaseBytes === null ? "–" : size(found.databaseBytes)),
    tile("Database is full in", days(found.diskDays), found.diskDays === null && "not known", soon(found.diskDays)),
    tile("Certificate expires in", days(found.certificateDays), found.certificateDays === null && "not known", soon(found.certificateDays)),
  ];
}

/**
 * Only the rows are replaced, so that the focus and what is scrolled to stay.
 * @param {Element} element
 * @param {Process[]} items
 */
function showProcesses(element, items) {
  const made = processTable(items);
  const [old, rows] = [element.querySelector("tbody"), made.querySelector("tbody")];
  if (old && rows) old.replaceWith(rows);
  else fill(element, made);
}

/** @param {Process[]} items */
function processTable(items) {
  /** @type {[string, string?][]} */
  const columns = [
    ["Process"], ["State", "text"], ["Reported", "number"], ["Readings", "number"], ["Commit, mean", "number"], ["Commit, 99 %", "number"],
    ["Queue", "number"], ["Lag", "number"], ["Version"], ["Running for", "number"],
  ];
  const rows = items.map((one) => [
    `${one.program}${one.name ? ` ${one.name}` : ""} on ${one.instance}`,
    h("span", { class: one.stale || (one.active && one.problem) ? "bad" : "" }, stateOf(one)),
    `${age(one.ageSeconds)}${one.ageSeconds < 0.5 ? "" : " ago"}`,
    // What a process said about itself is of no worth when it has stopped to say it.
    ...(one.stale
      ? ["–", "–", "–", "–", "–"]
      : [
          one.readingsPerS === null ? "–" : `${number(one.readingsPerS)} /s`,
          milliseconds(one.commitMeanS),
          milliseconds(one.commitP99S),
          one.waiting === null ? "–" : `${number(one.waiting, 0)} of ${number(one.capacity, 0)}`,
          seconds(one.lagS),
        ]),
    one.version,
    one.stale ? "–" : age((live.now() - Date.parse(one.startedAt)) / 1000),
  ]);
  return table("Processes table", columns, rows);
}

/** @param {Process} one */
function stateOf(one) {
  if (one.stale) return `no report for ${age(one.ageSeconds)}`;
  if (one.problem) return one.active ? `not ready: ${one.problem}` : one.problem;
  return one.active ? "active" : "standby";
}

/** @param {number | null | undefined} value */
const seconds = (value) => (value === null || value === undefined ? "–" : value < 1 ? "0 s" : age(value));

/** @param {number} bytes */
const size = (bytes) => (bytes < 2 ** 30 ? `${number(bytes / 2 ** 20, 0)} MiB` : `${number(bytes / 2 ** 30)} GiB`);

/** @param {number | null} value */
const milliseconds = (value) => (value === null ? "–" : `${number(value * 1000)} ms`);

/** Figures of the live picture: of each device's last reading. */
function arrivals() {
  const rows = [...live.vehicles.values(), ...live.meters.values()];
  const recent = rows.filter((row) => (live.now() - Date.parse(row.receivedAt)) / 1000 < RECENT_S);
  const delays = recent.map((row) => (Date.parse(row.receivedAt) - Date.parse(row.timestamp)) / 1000).sort((a, b) => a - b);
  const quantile = (/** @type {number} */ share) => delays[Math.min(delays.length - 1, Math.floor(share * delays.length))];
  const delay = (/** @type {number | undefined} */ value) => (value === undefined ? "–" : `${number(value, value < 10 ? 2 : 0)} s`);
  const silent = rows.filter((row) => row.silent).length;
  return [
    tile("Devices", number(rows.length, 0), "that have reported"),
    tile("Stored in the last minute", number(recent.length, 0), "devices"),
    tile("Silent", number(silent, 0), null, silent ? "bad" : ""),
    tile("Delay, median", delay(quantile(0.5)), "from device time to storage"),
    tile("Delay, 99 %", delay(quantile(0.99)), "in the last minute"),
    tile("Newest reading", rows.length ? `${age(Math.min(...rows.map((row) => live.age(row))))} ago` : "–"),
  ];
}

/** @param {string} ready */
const databaseTile = (ready) => tile("Database", ready, null, ready === "ready" ? "" : "bad");

/**
 * @param {{at: number, samples: Sample[]}} now
 * @param {{at: number, samples: Sample[]} | null} before
 */
function process(now, before) {
  const sum = (/** @type {Sample[]} */ samples, /** @type {string} */ name, labels = {}) =>
    samples.filter((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value)).reduce((total, one) => total + one.value, 0);
  const rate = (/** @type {string} */ name, labels = {}) =>
    before ? `${number((sum(now.samples, name, labels) - sum(before.samples, name, labels)) / ((now.at - before.at) / 1000))} /s` : "…";
  const writes = sum(now.samples, "fleet_batch_write_seconds_count");
  const mean = writes ? `${number((1000 * sum(now.samples, "fleet_batch_write_seconds_sum")) / writes)} ms` : "–";
  const began = sum(now.samples, "process_start_time_seconds");
  return [
    tile("Version", now.samples.find((one) => one.name === "fleet_build_info")?.labels.version ?? "–"),
    tile("Running for", began ? age(live.now() / 1000 - began) : "–"),
    tile("Readings over HTTP", rate("fleet_readings_total"), "of this process"),
    tile("Commit, mean", mean, "since the start"),
    tile("Answers", rate("fleet_http_answers_total"), `${number(sum(now.samples, "fleet_http_answers_total", { status: "503" }), 0)} with 503 since the start`),
    tile("Memory", `${number(sum(now.samples, "process_resident_memory_bytes") / 2 ** 20, 0)} MiB`),
  ];
}

/**
 * The samples of Prometheus' text format.
 * @param {string} text
 * @returns {Sample[]}
 */
function samplesOf(text) {
  return [...text.matchAll(/^([a-zA-Z_:][\w:]*)(?:{(.*)})? (\S+)$/gm)].map(([, name = "", labels = "", value]) => ({
    name,
    labels: Object.fromEntries([...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, text]) => [key, text])),
    value: Number(value),
  }));
}

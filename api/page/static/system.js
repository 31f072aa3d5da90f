// The state of the platform, as far as this API knows it: itself, its database, and the arrival of readings.

import { get, may, readOwnKey, send } from "./api.js";
import { fill, h, tile } from "./dom.js";
import { age, number } from "./format.js";
import { live } from "./live.js";

/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */

const EVERY_MS = 5_000;
const RECENT_S = 60;

/** @type {import("./app.js").View} */
export async function system(main, _query, signal) {
  const arrival = h("dl", { class: "tiles" });
  const service = h("dl", { class: "tiles" });
  // A key that is limited to some devices has no metrics.
  const hasMetrics = may(await readOwnKey(), "read", true);
  if (signal.aborted) return;
  fill(
    main,
    h("h1", {}, "System"),
    h("section", { class: "card", "aria-label": "Arrival of readings" }, h("h2", {}, "Arrival of readings"), arrival),
    h("section", { class: "card", "aria-label": "This API process" }, h("h2", {}, "This API process"), service),
    h(
      "p",
      { class: "note" },
      "The bridge, the keeper and the broker have metrics of their own, which this API does not know: queue, lag of the keeper, disk and certificates. docs/operations.md says where they are. ",
      h("a", { href: "docs" }, "Documentation of the API"),
    ),
  );
  /** @type {{at: number, samples: Sample[]} | null} */
  let before = null;
  const show = async () => {
    const [ready, text] = await Promise.all([
      get("/readyz", { signal }).then(() => "ready", (error) => error.message),
      hasMetrics ? send("metrics", { signal }).then((response) => response.text(), () => "") : "",
    ]);
    if (signal.aborted) return;
    const now = { at: performance.now(), samples: samplesOf(text) };
    fill(service, ...(hasMetrics ? process(ready, now, before) : [databaseTile(ready)]));
    before = now;
  };
  const showArrivals = () => fill(arrival, ...arrivals());
  const timers = [setInterval(() => void show(), EVERY_MS), setInterval(showArrivals, 1000)];
  signal.addEventListener("abort", () => timers.forEach(clearInterval));
  live.addEventListener("complete", showArrivals, { signal });
  showArrivals();
  await show();
}

/** Figures of the live picture: of each device's last reading. */
function arrivals() {
  const rows = [...live.vehicles.values(), ...live.meters.values()];
  const recent = rows.filter((row) => (live.now() - Date.parse(row.receivedAt)) / 1000 < RECENT_S);
  const delays = recent.map((row) => (Date.parse(row.receivedAt) - Date.parse(row.timestamp)) / 1000).sort((a, b) => a - b);
  const quantile = (/** @type {number} */ share) => delays[Math.min(delays.length - 1, Math.floor(share * delays.length))];
  const seconds = (/** @type {number | undefined} */ value) => (value === undefined ? "–" : `${number(value, value < 10 ? 2 : 0)} s`);
  const silent = rows.filter((row) => row.silent).length;
  return [
    tile("Devices", number(rows.length, 0), "that have reported"),
    tile("Stored in the last minute", number(recent.length, 0), "devices"),
    tile("Silent", number(silent, 0), null, silent ? "bad" : ""),
    tile("Delay, median", seconds(quantile(0.5)), "from device time to storage"),
    tile("Delay, 99 %", seconds(quantile(0.99)), "in the last minute"),
    tile("Newest reading", rows.length ? `${age(Math.min(...rows.map((row) => live.age(row))))} ago` : "–"),
  ];
}

/** @param {string} ready */
const databaseTile = (ready) => tile("Database", ready, null, ready === "ready" ? "" : "bad");

/**
 * @param {string} ready
 * @param {{at: number, samples: Sample[]}} now
 * @param {{at: number, samples: Sample[]} | null} before
 */
function process(ready, now, before) {
  const sum = (/** @type {Sample[]} */ samples, /** @type {string} */ name, labels = {}) =>
    samples.filter((one) => one.name === name && Object.entries(labels).every(([key, value]) => one.labels[key] === value)).reduce((total, one) => total + one.value, 0);
  const rate = (/** @type {string} */ name, labels = {}) =>
    before ? `${number((sum(now.samples, name, labels) - sum(before.samples, name, labels)) / ((now.at - before.at) / 1000))} /s` : "…";
  const writes = sum(now.samples, "fleet_batch_write_seconds_count");
  const mean = writes ? `${number((1000 * sum(now.samples, "fleet_batch_write_seconds_sum")) / writes)} ms` : "–";
  const began = sum(now.samples, "process_start_time_seconds");
  return [
    databaseTile(ready),
    tile("Version", now.samples.find((one) => one.name === "fleet_build_info")?.labels.version ?? "–"),
    tile("Running for", began ? age(live.now() / 1000 - began) : "–"),
    tile("Readings over HTTP", rate("fleet_readings_total"), "those over MQTT pass the bridge"),
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

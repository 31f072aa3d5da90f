// Rejected messages with reason and payload, and their replay by an administrator. What devices have sent is untrusted: it
// is only ever shown as text.

import { get, may, readOwnKey, saveCsv, send } from "./api.js";
import { announce, csvButton, field, fill, h, select, setText, table } from "./dom.js";
import { count, dateTime, number, visible } from "./format.js";
import { viewerZone } from "./time.js";

/** @import {Asked, Schemas} from "../types" */
/** @typedef {Schemas["Reject"]} Reject */
/** @typedef {Schemas["ReplayResult"]} Result */
/** @typedef {NonNullable<Asked<"/v1/rejects">["query"]>} Query */

/** Ids in one request. */
const MOST_REPLAYED = 100;
/** @type {Record<NonNullable<Query["reason"]>, string>} */
const REASONS = {
  bad_topic: "Topic names no device", not_json: "Not JSON", not_a_reading: "Not a reading", invalid_field: "Invalid field",
  device_mismatch: "Other device than the topic", timestamp_out_of_range: "Time out of range", too_many_readings: "Too many readings", too_large: "Too large",
  quota_exceeded: "Quota of the device",
  conflict: "Conflict", unstorable: "Refused by the database", forbidden: "Forbidden",
};
/** @type {Record<Result["outcome"], [string, string]>} what happened, and what would happen */
const OUTCOMES = {
  stored: ["Stored", "Would be stored"], partly: ["Partly stored", "Would be stored in part"], rejected: ["Rejected again", "Would be rejected again"],
  forbidden: ["Not replayed", "Would not be replayed"], replayed: ["Was replayed before", "Was replayed before"], busy: ["Is being replayed", "Is being replayed"],
  unknown: ["No longer there", "No longer there"], left: ["Not tried, replay it again", "Not tried, check it again"],
};
/** @type {[string, string][]} */
const STATES = [["false", "Pending"], ["true", "Replayed"], ["", "All"]];

/**
 * The rejects of a period.
 * @param {{from: string, to: string}} period
 * @param {AbortSignal} signal
 */
export function rejects(period, signal) {
  /** @type {Pick<Query, "reason" | "replayed" | "device">} */
  const chosen = { replayed: false };
  const body = h("div", { class: "stack" });
  const reasons = /** @type {[string, string][]} */ ([["", "All"], ...Object.entries(REASONS)]);
  const device = h("input", { autocomplete: "off", spellcheck: "false", onchange: () => change({ device: device.value.trim() }) });
  const asked = () => ({ ...period, ...chosen, limit: 100 });
  const element = h(
    "section",
    { class: "card", "aria-label": "Rejects" },
    h("div", { class: "heading" }, h("h2", {}, "Rejects"), csvButton("Rejects as CSV", () => saveCsv("/v1/rejects", { query: asked() }))),
    h(
      "div",
      { class: "controls" },
      field("Reason", select(reasons, "", (reason) => change({ reason: /** @type {Query["reason"]} */ (reason || null) }))),
      field("State", select(STATES, "false", (state) => change({ replayed: state ? state === "true" : null }))),
      field("Device", device),
    ),
    body,
  );
  let shown = new AbortController();
  /** @param {Partial<typeof chosen>} changed */
  function change(changed) {
    Object.assign(chosen, changed);
    shown.abort();
    shown = new AbortController();
    showList(body, asked(), AbortSignal.any([signal, shown.signal])).catch((error) => {
      if (!signal.aborted && error.name !== "AbortError") fill(body, h("p", { class: "problem", role: "alert" }, error.message));
    });
  }
  change({});
  return element;
}

/**
 * @param {HTMLElement} body
 * @param {Query} asked
 * @param {AbortSignal} signal
 */
async function showList(body, asked, signal) {
  fill(body, h("p", { class: "note", role: "status" }, "Loading …"));
  const mayReplay = may(await readOwnKey(), "admin");
  /** @type {Row[]} */
  const rows = [];
  /** @param {string} [cursor] */
  const more = async (cursor) => {
    const page = await get("/v1/rejects", { query: { ...asked, cursor }, signal });
    rows.push(...page.items.map((item) => rowOf(item, mayReplay ? replay : null, signal)));
    const following = page.nextCursor;
    fill(
      body,
      page.notKept ? h("p", { class: "note" }, `${count(page.notKept, "further message")} beyond the quotas of their devices ${page.notKept === 1 ? "was" : "were"} counted and not kept.`) : null,
      rows.length > 0 && mayReplay && replayControls(rows, replay),
      rows.length ? rejectTable(rows, mayReplay) : h("p", { class: "note" }, "No message was rejected in this period."),
      rows.length > 0 && h("p", { class: "note" }, `Times in ${viewerZone()}.`),
      following && h("button", { type: "button", onclick: () => more(following).catch((error) => announce(error.message)) }, "More rejects"),
    );
  };
  /**
   * @param {Row[]} some
   * @param {boolean} dryRun
   */
  const replay = async (some, dryRun) => {
    try {
      for (let n = 0; n < some.length; n += MOST_REPLAYED) await ask(some.slice(n, n + MOST_REPLAYED), dryRun, signal);
      announce(`${count(some.length, "message")} ${dryRun ? "checked" : "replayed"}`);
    } catch (error) {
      if (signal.aborted) return;
      for (const row of some) if (!row.result.textContent) setText(row.result, /** @type {Error} */ (error).message);
      announce(/** @type {Error} */ (error).message);
    }
  };
  await more();
}

/**
 * Replay some messages, or say what a replay would do, and show the results.
 * @param {Row[]} some
 * @param {boolean} dryRun
 * @param {AbortSignal} signal
 */
async function ask(some, dryRun, signal) {
  for (const row of some) fill(row.result);
  /** @type {Schemas["ReplayBody"]} */
  const asked = { ids: some.map((row) => row.item.id), dryRun, evenForbidden: false };
  const response = await send("v1/rejects/replay", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked), signal });
  /** @type {Schemas["ReplayAnswer"]} */
  const answer = await response.json();
  const results = new Map(answer.items.map((result) => [result.id, result]));
  for (const row of some) {
    const result = results.get(row.item.id);
    if (result) fill(row.result, ...resultOf(result, dryRun));
  }
}

/**
 * @param {Result} result
 * @param {boolean} dryRun
 */
function resultOf({ outcome, stored, duplicates, rejected, detail }, dryRun) {
  const text = OUTCOMES[outcome][dryRun ? 1 : 0];
  const isStored = outcome === "stored" || outcome === "partly";
  const counts = isStored ? `${count(stored, "reading")} new, ${number(duplicates, 0)} known, ${number(rejected, 0)} rejected` : "";
  return [h("strong", isStored ? {} : { class: "bad" }, text), counts && h("span", {}, `: ${counts}`), detail && h("span", { class: "note" }, ` ${visible(detail)}`)];
}

/**
 * @typedef {{item: Reject, box: HTMLInputElement, result: HTMLElement, buttons: HTMLElement}} Row
 * @typedef {(rows: Row[], dryRun: boolean) => Promise<void>} Replay
 */

/**
 * @param {Reject} item
 * @param {Replay | null} replay
 * @param {AbortSignal} signal
 * @returns {Row}
 */
function rowOf(item, replay, signal) {
  const name = `${item.reason}, ${item.device ?? "no device"}, ${dateTime(item.receivedAt, viewerZone())}`;
  const result = h("span", {}, item.replayedAt && `Replayed ${dateTime(item.replayedAt, viewerZone())}`);
  const buttons = h("span", { class: "group" }, h("button", { type: "button", "aria-label": `Payload: ${name}`, onclick: () => void showPayload(item, signal) }, "Payload"));
  const row = { item, result, buttons, box: h("input", { type: "checkbox", "aria-label": `Select: ${name}` }) };
  if (replay) buttons.append(h("button", { type: "button", "aria-label": `Replay: ${name}`, onclick: () => replay([row], false) }, "Replay"));
  return row;
}

/**
 * @param {Row[]} rows
 * @param {Replay} replay
 */
function replayControls(rows, replay) {
  const all = h("input", { type: "checkbox", onchange: () => rows.forEach((row) => { row.box.checked = all.checked; }) });
  /** @param {boolean} dryRun */
  const press = (dryRun) => {
    const some = rows.filter((row) => row.box.checked);
    return some.length ? replay(some, dryRun) : announce("No reject is selected");
  };
  return h(
    "div",
    { class: "controls", role: "group", "aria-label": "Replay" },
    h("label", { class: "check" }, all, "Select all that are shown"),
    h("button", { type: "button", onclick: () => press(true) }, "Check selected"),
    h("button", { type: "button", class: "primary", onclick: () => press(false) }, "Replay selected"),
    h("span", { class: "note" }, "A check says what a replay would do, and changes nothing."),
  );
}

/**
 * @param {Row[]} rows
 * @param {boolean} mayReplay
 */
function rejectTable(rows, mayReplay) {
  const zone = viewerZone();
  /** @type {[string, string?][]} */
  const columns = [["Received"], ["Reason"], ["Device"], ["Actions"], ["Result", "text"], ["Detail", "text"], ["Source"], ["Bytes", "number"]];
  const cells = rows.map(({ item, box, result, buttons }) => [
    mayReplay ? h("label", { class: "check" }, box, dateTime(item.receivedAt, zone)) : dateTime(item.receivedAt, zone),
    REASONS[/** @type {keyof typeof REASONS} */ (item.reason)] ?? item.reason,
    item.device && item.kind ? h("a", { href: `#/${item.kind}s/${item.device}` }, item.device) : visible(item.device ?? "–"),
    buttons,
    result,
    visible(item.detail),
    visible(item.source),
    number(item.bytes, 0),
  ]);
  return table("Rejects table", columns, cells);
}

/**
 * @param {Reject} item
 * @param {AbortSignal} signal
 */
async function showPayload(item, signal) {
  const body = h("div", { class: "stack" }, h("p", { class: "note", role: "status" }, "Loading …"));
  const dialog = h(
    "dialog",
    { class: "card", "aria-label": "Payload" },
    h("div", { class: "heading" }, h("h2", {}, "Payload"), h("button", { type: "button", onclick: () => dialog.close() }, "Close")),
    body,
  );
  dialog.addEventListener("close", () => dialog.remove());
  signal.addEventListener("abort", () => dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  try {
    const { payload, topic, sender, detail } = await get("/v1/rejects/{id}", { path: { id: item.id }, signal });
    const origin = topic === null ? `over HTTP${sender === null ? "" : ` with the key ${visible(sender)}`}` : `topic ${visible(topic)}`;
    const size = payload.shortened ? `the beginning of ${number(item.bytes, 0)} bytes` : `${number(item.bytes, 0)} bytes`;
    fill(
      body,
      h("p", {}, visible(detail)),
      h("p", { class: "note" }, `${origin}, format ${item.format}, ${size}${payload.encoding === "base64" ? ", not UTF-8, shown in base64" : ""}`),
      h("pre", { class: "payload", tabindex: 0, role: "region", "aria-label": "Content" }, visible(payload.content)),
    );
  } catch (error) {
    fill(body, h("p", { class: "problem", role: "alert" }, /** @type {Error} */ (error).message));
  }
}

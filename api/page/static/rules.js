// The rules of alarms, which an administrator changes.

import { get, send } from "./api.js";
import { announce, field, fill, h, select, setText, table } from "./dom.js";
import { quantity } from "./format.js";

/** @import {Schemas} from "../types" */
/** @typedef {Schemas["Rule"]} Rule */

/**
 * Show the rules in this element.
 * @param {HTMLElement} element
 * @param {boolean} mayChange
 * @param {AbortSignal} signal
 */
export async function showRules(element, mayChange, signal) {
  const show = async () => {
    const { items } = await get("/v1/alarm-rules", { signal });
    fill(element, h("h2", {}, "Rules"), ruleTable(items, mayChange ? (rule) => edit(rule, show, signal) : null));
  };
  await show().catch((error) => {
    if (!signal.aborted) fill(element, h("p", { class: "problem", role: "alert" }, error.message));
  });
}

/**
 * @param {Rule[]} items
 * @param {((rule: Rule) => void) | null} change
 */
function ruleTable(items, change) {
  /** @type {[string, string?][]} */
  const columns = [["Rule"], ["Raised"], ["Lasts", "number"], ["Cleared"], ["Severity"], ["Concerns"], ["State"], ...(change ? [/** @type {[string]} */ (["Action"])] : [])];
  const rows = items.map((rule) => [
    rule.name,
    `${rule.measure} ${rule.direction} ${quantity(rule.raiseAt, rule.unit)}`,
    rule.forS ? `${rule.forS} s` : "at once",
    `at ${quantity(rule.clearAt, rule.unit)}`,
    rule.severity,
    [rule.kind, rule.site, rule.device].filter(Boolean).join(" ") || "all",
    rule.enabled ? "on" : "off",
    ...(!change ? [] : [h("button", { type: "button", "aria-label": `Change ${rule.name}`, onclick: () => change(rule) }, "Change")]),
  ]);
  return table("Rules table", columns, rows);
}

/**
 * @param {Rule} rule
 * @param {() => Promise<void>} saved
 * @param {AbortSignal} signal
 */
function edit({ name, unit, ...rule }, saved, signal) {
  const bound = (/** @type {number} */ value) => h("input", { type: "number", step: "any", required: true, value });
  const raiseAt = bound(rule.raiseAt);
  const clearAt = bound(rule.clearAt);
  const forS = h("input", { type: "number", min: 0, max: 604_800, step: 1, required: true, value: rule.forS });
  const enabled = h("input", { type: "checkbox", checked: rule.enabled });
  const severities = select([["info", "Info"], ["warning", "Warning"], ["critical", "Critical"]], rule.severity, () => {});
  const because = h("p", { class: "problem", role: "alert" });
  const form = h(
    "form",
    {},
    field(`Raised ${rule.direction}, ${unit}`, raiseAt),
    field("Must last, s", forS),
    field(`Cleared at, ${unit}`, clearAt),
    field("Severity", severities),
    h("label", { class: "check" }, enabled, "On"),
    because,
    h("div", { class: "group" }, h("button", { type: "submit", class: "primary" }, "Save"), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel")),
  );
  const dialog = h("dialog", { class: "card", "aria-label": `Rule ${name}` }, h("h2", {}, name), form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = {
      ...rule, raiseAt: raiseAt.valueAsNumber, clearAt: clearAt.valueAsNumber, forS: forS.valueAsNumber, severity: severities.value, enabled: enabled.checked,
    };
    try {
      await send(`v1/alarm-rules/${name}`, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    } catch (error) {
      return setText(because, /** @type {Error} */ (error).message);
    }
    dialog.close();
    await saved().catch(() => {});
    announce(`Rule ${name} saved`);
  });
  dialog.addEventListener("close", () => dialog.remove());
  signal.addEventListener("abort", () => dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

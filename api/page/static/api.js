// Requests to the API with the key of the person, and their errors. The key is in a header, never in an address.

/** @import {Answer, Asked, JsonPath, Schemas} from "../types" */

const STORED = "fleet.key";

/** A request that did not succeed; `message` says why, in the words of the API. */
export class Refused extends Error {
  /**
   * @param {number} status 0: no answer
   * @param {string} reason
   */
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

/** The stored key; `localStorage` has it only if the person wants to stay signed in. */
export function storedKey() {
  return sessionStorage.getItem(STORED) ?? localStorage.getItem(STORED);
}

/**
 * @param {string} key
 * @param {boolean} stay
 */
export function storeKey(key, stay) {
  forgetKey();
  (stay ? localStorage : sessionStorage).setItem(STORED, key);
}

export function forgetKey() {
  ownKey = undefined;
  sessionStorage.removeItem(STORED);
  localStorage.removeItem(STORED);
}

/** @type {Promise<Schemas["OwnKey"]> | undefined} */
let ownKey;

/** Name, scopes and limits of the key; asked for once. */
export function readOwnKey() {
  ownKey ??= get("/v1/keys/me", {}).catch((error) => {
    ownKey = undefined;
    throw error;
  });
  return ownKey;
}

/**
 * Whether a key has a scope, and if it must see every device, no limit.
 * @param {Schemas["OwnKey"]} key
 * @param {"read" | "assign" | "admin"} scope
 * @param {boolean} [everything]
 */
export function may({ scopes, devices, sites }, scope, everything = false) {
  return (scopes.includes(scope) || scopes.includes("admin")) && !(everything && (devices || sites));
}

/** @type {() => void} */
let onUnauthorized = () => {};

/**
 * Call this when the API no longer accepts the key.
 * @param {() => void} listener
 */
export function whenUnauthorized(listener) {
  onUnauthorized = listener;
}

/**
 * GET a JSON answer. The types of the path's parameters and of the answer are those of the OpenAPI document.
 * @template {JsonPath} P
 * @param {P} path
 * @param {Asked<P> & {signal?: AbortSignal}} asked
 * @returns {Promise<Answer<P>>}
 */
export async function get(path, asked) {
  const response = await send(address(path, asked), { signal: asked.signal });
  return response.json();
}

/**
 * Save the CSV of the same question as a file.
 * @template {JsonPath} P
 * @param {P} path
 * @param {Asked<P>} asked
 */
export async function saveCsv(path, asked) {
  const response = await send(address(path, asked), { headers: { Accept: "text/csv" } });
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "fleet.csv";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

/**
 * Send a request with the key. Raises `Refused` unless the answer is a success.
 * @param {string} relative
 * @param {RequestInit} [options]
 * @param {string | null} [key]
 */
export async function send(relative, options = {}, key = storedKey()) {
  const headers = new Headers(options.headers);
  headers.set("Authorization", `Bearer ${key ?? ""}`);
  const response = await fetch(new URL(relative, document.baseURI), { ...options, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The API cannot be reached.");
  });
  if (response.ok) return response;
  if (response.status === 401 && key === storedKey()) onUnauthorized();
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `The API answered with ${response.status}.`);
}

/**
 * @param {string} path
 * @param {unknown} given
 */
function address(path, given) {
  const asked = /** @type {{path?: Record<string, unknown>, query?: object}} */ (given);
  const filled = path.replace(/{(\w+)}/g, (_, name) => encodeURIComponent(String(asked.path?.[name])));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(asked.query ?? {}))
    if (value !== undefined && value !== null && value !== "") query.set(name, String(value));
  return `${filled.slice(1)}${query.size ? `?${query}` : ""}`;
}

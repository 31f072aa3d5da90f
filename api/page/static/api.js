// Requests to the API with the key of the person, and their errors. The key is in a header, never in an address.

/** @import {Answer, Asked, JsonPath, ReplicaPath, Schemas} from "../types" */

const STORED = "fleet.key";
/** Longer than replicas lag by default. Without end, every later question would be answered apart from those of other viewers. */
const OWN_CHANGE_MS = 60_000;
/** @type {Record<ReplicaPath, true>} */
const OF_REPLICAS = {
  "/v1/live/vehicles": true, "/v1/live/vehicles/{vehicleId}": true, "/v1/live/meters": true, "/v1/live/meters/{meterId}": true,
  "/v1/history/vehicles/{vehicleId}": true, "/v1/history/meters/{meterId}": true,
  "/v1/analytics/performance/{vehicleId}": true, "/v1/analytics/energy": true, "/v1/analytics/efficiency": true,
  "/v1/analytics/series/vehicles/{vehicleId}": true, "/v1/analytics/series/meters/{meterId}": true,
  "/v1/sessions": true, "/v1/quality": true,
};

/** Where the last change by this page is in the log of the database: a replica may not have it yet. */
const ownChange = { position: "", at: 0 };

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
  ownChange.position = "";
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
  const response = await ask(path, asked, { signal: asked.signal });
  return response.json();
}

/**
 * Save the CSV of the same question as a file.
 * @template {JsonPath} P
 * @param {P} path
 * @param {Asked<P>} asked
 */
export async function saveCsv(path, asked) {
  const response = await ask(path, asked, { headers: { Accept: "text/csv" } });
  const name = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "fleet.csv";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

/**
 * Ask a question whose answer contains the last change by this page.
 * @param {JsonPath} path
 * @param {unknown} asked
 * @param {RequestInit} options
 */
async function ask(path, asked, options) {
  const { position, at } = ownChange;
  if (!(path in OF_REPLICAS) || !position || Date.now() - at > OWN_CHANGE_MS) return send(address(path, asked), options);
  try {
    return await send(address(path, asked, position), options);
  } catch (error) {
    // After a failover the database does not know the position.
    if (!(error instanceof Refused) || (error.status !== 410 && error.status !== 422)) throw error;
    if (ownChange.position === position) ownChange.position = "";
    return send(address(path, asked), options);
  }
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
  const position = response.headers.get("x-position");
  if (position) Object.assign(ownChange, { position, at: Date.now() });
  if (response.ok) return response;
  if (response.status === 401 && key === storedKey()) onUnauthorized();
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `The API answered with ${response.status}.`);
}

/**
 * @param {string} path
 * @param {unknown} given
 * @param {string} [asOf]
 */
function address(path, given, asOf) {
  const asked = /** @type {{path?: Record<string, unknown>, query?: object}} */ (given);
  const filled = path.replace(/{(\w+)}/g, (_, name) => encodeURIComponent(String(asked.path?.[name])));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...asked.query, asOf }))
    if (value !== undefined && value !== null && value !== "") query.set(name, String(value));
  return `${filled.slice(1)}${query.size ? `?${query}` : ""}`;
}

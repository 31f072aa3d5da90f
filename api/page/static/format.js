// Numbers, times and ages as text.

const NONE = "–";
/** @type {Map<number, Intl.NumberFormat>} */
const formats = new Map();

/**
 * @param {number | null | undefined} value
 * @param {number} [digits] after the point
 */
export function number(value, digits = 1) {
  if (value === null || value === undefined) return NONE;
  let format = formats.get(digits);
  if (!format) {
    format = new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    formats.set(digits, format);
  }
  return format.format(value === 0 ? 0 : value);
}

const significant = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });

/**
 * A value of any measure with its unit, to three digits.
 * @param {number} value
 * @param {string} unit of the contract
 */
export function quantity(value, unit) {
  return `${Math.abs(value) >= 1000 ? number(value, 0) : significant.format(value)} ${unit === "degC" ? "°C" : unit}`;
}

/**
 * A number of things, which have an English plural.
 * @param {number} n
 * @param {string} thing
 */
export function count(n, thing) {
  return `${number(n, 0)} ${thing}${n === 1 ? "" : "s"}`;
}

/**
 * A text of unknown origin: control and formatting characters, which could hide or reorder a part of it, become visible.
 * @param {string} text
 */
export function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (sign) => (sign === "\n" ? sign : `\\u{${sign.codePointAt(0)?.toString(16)}}`));
}

/** @param {number | null | undefined} value kWh */
export function kwh(value) {
  if (value === null || value === undefined) return NONE;
  return Math.abs(value) >= 100_000 ? `${number(value / 1000, 0)} MWh` : `${energy(value)} kWh`;
}

/** The number only, for a column whose heading has the unit. @param {number | null | undefined} value kWh */
export function energy(value) {
  const size = Math.abs(value ?? 0);
  return number(value, size === 0 || size >= 1000 ? 0 : size >= 10 ? 1 : 2);
}

/** @param {number | null | undefined} value kW */
export function kw(value) {
  if (value === null || value === undefined) return NONE;
  return Math.abs(value) >= 10_000 ? `${number(value / 1000)} MW` : `${number(value)} kW`;
}

/** @param {number | null | undefined} value 0 to 1; it may be above 1, which shows a fault */
export function percent(value, digits = 0) {
  return value === null || value === undefined ? NONE : `${number(value * 100, digits)} %`;
}

/**
 * The covered part of a time: never 100 % when something is missing.
 * @param {number | null | undefined} value
 */
export function coverage(value) {
  return value === null || value === undefined ? NONE : `${number(Math.floor(value * 1000) / 10)} %`;
}

/**
 * @param {number | null | undefined} seconds
 * @returns {string}
 */
export function age(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < -5) return `${age(-seconds)} ahead of the clock`;
  if (seconds < 0.5) return "now";
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

/** How long ago, in words. @param {number | null | undefined} seconds */
export function ago(seconds) {
  const text = age(seconds);
  return /^\d+ \w+$/.test(text) ? `${text} ago` : text;
}

/**
 * @param {string | Date} at
 * @param {string} zone
 */
export function dateTime(at, zone) {
  const parts = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" };
  return format(at, zone, /** @type {Intl.DateTimeFormatOptions} */ (parts));
}

/**
 * @param {string | Date} at
 * @param {string} zone
 */
export function clock(at, zone) {
  return format(at, zone, { hour: "2-digit", minute: "2-digit" });
}

/** @type {Map<string, Intl.DateTimeFormat>} */
const zoned = new Map();

/**
 * @param {string | Date} at
 * @param {string} zone
 * @param {Intl.DateTimeFormatOptions} options
 */
export function format(at, zone, options) {
  const key = zone + JSON.stringify(options);
  let found = zoned.get(key);
  if (!found) {
    found = new Intl.DateTimeFormat(undefined, { timeZone: zone, hourCycle: "h23", ...options });
    zoned.set(key, found);
  }
  return found.format(new Date(at));
}

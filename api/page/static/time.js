// Local dates of a time zone as instants, and the periods that the views show. A date is text: 2026-10-25.

/** @typedef {"day" | "week" | "month" | "year"} Span */
/** @typedef {{from: Date, to: Date}} Period */

const DAY_MS = 86_400_000;

export function viewerZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

/** @type {Map<string, Intl.DateTimeFormat>} */
const walls = new Map();

/**
 * The clock of a zone at an instant, as the instant at which a clock of UTC shows the same.
 * @param {number} at
 * @param {string} zone
 */
function wall(at, zone) {
  let format = walls.get(zone);
  if (!format) {
    const two = /** @type {const} */ ("2-digit");
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone, hourCycle: "h23", year: "numeric", month: two, day: two, hour: two, minute: two, second: two,
    });
    walls.set(zone, format);
  }
  const part = Object.fromEntries(format.formatToParts(at).map(({ type, value }) => [type, Number(value)]));
  return Date.UTC(part.year ?? 0, (part.month ?? 1) - 1, part.day, part.hour, part.minute, part.second);
}

/**
 * The first instant of a local date. Where the clock skips midnight it is the instant of the change.
 * @param {string} date
 * @param {string} zone
 */
export function startOfDay(date, zone) {
  const midnight = Date.parse(`${date}T00:00:00Z`);
  const [before, after] = [midnight - DAY_MS, midnight + DAY_MS].map((at) => wall(at, zone) - at);
  const earlier = midnight - Math.max(before ?? 0, after ?? 0);
  const later = midnight - Math.min(before ?? 0, after ?? 0);
  if (wall(earlier, zone) === midnight) return new Date(earlier);
  return new Date(wall(later, zone) === midnight ? later : midnight - (before ?? 0));
}

/** @param {string} zone */
export function today(zone) {
  return dateOf(new Date(), zone);
}

/**
 * The local date of an instant.
 * @param {Date} at
 * @param {string} zone
 */
export function dateOf(at, zone) {
  return new Date(wall(at.getTime(), zone)).toISOString().slice(0, 10);
}

/**
 * The first date of the span that contains a date, or of one that is `steps` spans later.
 * @param {string} date
 * @param {Span} span
 * @param {number} [steps]
 */
export function firstDate(date, span, steps = 0) {
  const at = new Date(`${date}T00:00:00Z`);
  if (span === "week") at.setUTCDate(at.getUTCDate() - ((at.getUTCDay() + 6) % 7));
  if (span === "month" || span === "year") at.setUTCDate(1);
  if (span === "year") at.setUTCMonth(0);
  if (span === "day" || span === "week") at.setUTCDate(at.getUTCDate() + steps * (span === "week" ? 7 : 1));
  else if (span === "month") at.setUTCMonth(at.getUTCMonth() + steps);
  else at.setUTCFullYear(at.getUTCFullYear() + steps);
  return at.toISOString().slice(0, 10);
}

/**
 * The span around a date, in a time zone.
 * @param {string} date
 * @param {Span} span
 * @param {string} zone
 * @returns {Period}
 */
export function periodOf(date, span, zone) {
  return { from: startOfDay(firstDate(date, span), zone), to: startOfDay(firstDate(date, span, 1), zone) };
}

/**
 * @param {string} date
 * @param {Span} span
 */
export function title(date, span) {
  const first = new Date(`${firstDate(date, span)}T00:00:00Z`);
  /** @type {Record<Span, Intl.DateTimeFormatOptions>} */
  const options = {
    day: { weekday: "short", day: "numeric", month: "long", year: "numeric" },
    week: { day: "numeric", month: "long", year: "numeric" },
    month: { month: "long", year: "numeric" },
    year: { year: "numeric" },
  };
  const text = new Intl.DateTimeFormat(undefined, { timeZone: "UTC", ...options[span] }).format(first);
  return span === "week" ? `Week from ${text}` : text;
}

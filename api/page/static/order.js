// The order of ids and sites as people read them: numbers by value, so EV_2 comes before EV_10.

const collator = new Intl.Collator(undefined, { numeric: true });

/**
 * @param {string} one
 * @param {string} other
 */
export function compareIds(one, other) {
  return collator.compare(one, other) || (one < other ? -1 : one > other ? 1 : 0); // the collator takes EV_1 and EV_01 as equal
}

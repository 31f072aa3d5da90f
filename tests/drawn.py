"""How long the page takes to draw a device, for the browser's tests and the benchmark."""

IS_DRAWN = "() => performance.getEntriesByName('device-drawn').length && document.querySelector('canvas')"
"""Whether the charts and the sessions of a device are drawn."""
DRAWN_MS = """() => {
  const after = (mark, ...paths) => {
    const isAnswer = ({ name }) => paths.some((path) => name.includes(path));
    const answers = performance.getEntriesByType("resource").filter(isAnswer);
    return performance.getEntriesByName(mark)[0].startTime - Math.max(...answers.map((one) => one.responseEnd));
  };
  return Math.max(after("charts-drawn", "/v1/analytics/"), after("device-drawn", "/v1/analytics/", "/v1/sessions"));
}"""
"""Evaluated in the page when a device is drawn: the longer of two times, from the last answer of its charts until they
are drawn, and from the last answer of all until all is drawn."""
YEAR_DRAWN_MS = 300
"""What it must be for a year of a vehicle, with nothing beside it."""

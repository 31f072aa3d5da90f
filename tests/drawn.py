"""How long the page takes to draw a device, for the browser's tests and the benchmark."""

DRAWN_MS = """() => {
  const isAnswer = ({ name }) => name.includes("/v1/analytics/") || name.includes("/v1/sessions");
  const answers = performance.getEntriesByType("resource").filter(isAnswer);
  const [drawn] = performance.getEntriesByName("device-drawn");
  return drawn.startTime - Math.max(...answers.map((one) => one.responseEnd));
}"""
"""Time from the last answer to the drawn charts, evaluated in the page when they are drawn."""
YEAR_DRAWN_MS = 300
"""What it must be for a year of a vehicle, with nothing beside it."""

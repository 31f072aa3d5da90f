// Sets the colours before the first paint, so that the page does not flash. A classic script, because modules are deferred.
"use strict";
try {
  const chosen = localStorage.getItem("fleet.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Without storage the system's colours are used.
}

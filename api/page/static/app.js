// The frame of the page: signing in, the views and their addresses, the state of the connection, the colours.

import { forgetKey, may, readOwnKey, Refused, send, storedKey, storeKey, whenUnauthorized } from "./api.js";
import { announce, field, fill, h, setText } from "./dom.js";
import { fleet } from "./fleet.js";
import { age } from "./format.js";
import { live } from "./live.js";
import { readRegister } from "./register.js";

/**
 * @typedef {(main: HTMLElement, query: URLSearchParams, signal: AbortSignal, id: string) => void | Promise<void>} View
 * What it starts ends with the signal.
 */
/** @type {{path: string, title: string, inNav: boolean, load: () => Promise<View>}[]} */
const VIEWS = [
  { path: "fleet", title: "Fleet", inNav: true, load: async () => fleet },
  { path: "sessions", title: "Sessions", inNav: true, load: async () => (await import("./sessions.js")).sessions },
  { path: "quality", title: "Quality", inNav: true, load: async () => (await import("./quality.js")).quality },
  { path: "alarms", title: "Alarms", inNav: true, load: async () => (await import("./alarms.js")).alarms },
  { path: "system", title: "System", inNav: true, load: async () => (await import("./system.js")).system },
  { path: "vehicles", title: "Vehicle", inNav: false, load: async () => (await import("./device.js")).vehicle },
  { path: "meters", title: "Meter", inNav: false, load: async () => (await import("./device.js")).meter },
];

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const nav = /** @type {HTMLElement} */ (document.getElementById("nav"));
const account = /** @type {HTMLElement} */ (document.getElementById("account"));
const connection = /** @type {HTMLElement} */ (document.getElementById("connection"));

let shown = new AbortController();
let signedIn = new AbortController();
let current = "";

/** Show the view that the address names. */
async function show() {
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  if (!storedKey()) return showSignIn("");
  const [path = "", search] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, id = ""] = path.split("/");
  const view = VIEWS.find((one) => one.path === name) ?? /** @type {typeof VIEWS[0]} */ (VIEWS[0]);
  current = view.path;
  showNav();
  document.title = `${id || view.title} – Fleet energy`;
  const render = await view.load().catch(() => null);
  if (signal.aborted) return;
  if (!render) return fill(main, h("p", { class: "problem", role: "alert" }, "The API cannot be reached."));
  fill(main);
  main.dataset.address = location.hash; // Until now the view before it was still shown.
  window.scrollTo(0, 0);
  try {
    await render(main, new URLSearchParams(search), signal, id);
  } catch (error) { // Such as a date or a time zone that there is not.
    const reason = /** @type {Error} */ (error).message;
    if (!signal.aborted) fill(main, h("p", { class: "problem", role: "alert" }, `This address cannot be shown: ${reason}`));
  }
}

/** @param {string} reason */
function showSignIn(reason) {
  nav.hidden = true;
  fill(account, themeButton());
  document.title = "Sign in – Fleet energy";
  const key = h("input", { type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "reason" });
  const stay = h("input", { type: "checkbox" });
  const because = h("p", { id: "reason", class: "problem", role: "alert" }, reason);
  const form = h(
    "form",
    { class: "card sign-in" },
    h("h1", {}, "Sign in"),
    h("p", { class: "note" }, "The key stays in this browser and is sent to this API only. It needs the scope ", h("code", {}, "read"), "."),
    field("API key", key),
    h("label", { class: "check" }, stay, "Stay signed in on this device"),
    because,
    h("button", { type: "submit", class: "primary" }, "Sign in"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const token = key.value.trim();
    try {
      const key = await (await send("v1/keys/me", {}, token)).json();
      if (!may(key, "read")) throw new Refused(403, "This key lacks the scope read.");
      storeKey(token, stay.checked);
      begin();
    } catch (error) {
      setText(because, /** @type {Error} */ (error).message);
      key.focus();
    }
  });
  fill(main, form);
  key.focus();
}

/** Start what a signed-in person sees. */
function begin() {
  signedIn.abort();
  signedIn = new AbortController();
  nav.hidden = false;
  showNav();
  const name = h("span", { class: "note key-name" });
  readOwnKey().then((key) => setText(name, key.name), () => {});
  fill(account, name, themeButton(), h("button", { type: "button", onclick: () => end("") }, "Sign out"));
  const { signal } = signedIn;
  // Without the register, names and sites are missing.
  live.addEventListener("complete", () => readRegister(signal).catch(() => {}), { once: true, signal });
  live.start();
  void show();
}

function showNav() {
  const links = VIEWS.filter((view) => view.inNav).map((view) =>
    h("a", { href: `#/${view.path}`, "aria-current": view.path === current ? "page" : null }, view.title),
  );
  const focused = [...nav.children].indexOf(/** @type {Element} */ (document.activeElement));
  fill(nav, ...links);
  links[focused]?.focus();
}

/** @param {string} reason */
function end(reason) {
  signedIn.abort();
  shown.abort();
  live.stop();
  forgetKey();
  showSignIn(reason);
}

const THEMES = /** @type {const} */ (["auto", "light", "dark"]);

function themeButton() {
  const current = () => THEMES.find((theme) => theme === document.documentElement.dataset.theme) ?? "auto";
  const button = h("button", { type: "button", onclick: next }, "◐");
  const name = () => { button.ariaLabel = button.title = `Colours: ${current()}`; };
  name();
  function next() {
    const theme = THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length] ?? "auto";
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("fleet.theme", theme);
    name();
    announce(button.title);
    window.dispatchEvent(new Event("colours"));
  }
  return button;
}

function showConnection() {
  const isCurrent = live.state !== "lost" && live.state !== "stale";
  const since = age((Date.now() - live.lostAt) / 1000);
  const texts = { off: "", connecting: "Connecting …", live: live.everyS > 1 ? `Live, every ${Math.round(live.everyS)} s` : "Live", lost: `No connection for ${since}`, stale: `No database for ${since}` };
  // The seconds are no news to a screen reader.
  connection.setAttribute("aria-live", !isCurrent && connection.dataset.state === live.state ? "off" : "polite");
  connection.dataset.state = live.state;
  setText(connection, texts[live.state]);
}

live.addEventListener("state", () => {
  showConnection();
  // A view that could not be answered is asked for again.
  if (live.state === "live" && main.querySelector(".problem[role=alert]:not(:empty)")) void show();
});
setInterval(showConnection, 1000);
window.addEventListener("hashchange", () => {
  void show().then(() => announce(document.title));
  main.focus({ preventScroll: true });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("colours")));
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // The address names the view.
  main.focus();
});
whenUnauthorized(() => end("The API no longer accepts this key."));
if (storedKey()) begin();
else showSignIn("");

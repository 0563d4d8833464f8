// The frame: which page is shown, the connection, the theme, signing out.
import { get, post } from "./api.js";
import * as deployment from "./deployment.js";
import { el, say, show } from "./dom.js";
import * as events from "./events.js";
import { span } from "./format.js";
import { follow, listen, live } from "./live.js";
import * as nodes from "./nodes.js";
import * as overview from "./overview.js";
import * as revisions from "./revisions.js";
import * as routes from "./routes.js";

const PAGES = { "": overview, deployments: deployment, routes, revisions, nodes, events };
const root = document.getElementById("page"), link = document.getElementById("link"), notice = document.getElementById("notice");
const silence = el("span", { "aria-live": "off" }); // how long: not to be read out every second
const session = { role: "read" };
const end = new AbortController();
let page = null;

function open() {
  const [, name, ...rest] = location.hash.split("/");
  const found = PAGES[name ?? ""] ?? overview;
  page?.unmount?.();
  document.getElementById("dialog").close();
  const values = rest.map(decodeURIComponent);
  const title = found.title instanceof Function ? found.title(...values) : found.title;
  document.title = `${title} · serveconf`;
  for (const anchor of document.querySelectorAll(".top nav a")) {
    const here = PAGES[anchor.hash.split("/")[1]] === (found === deployment ? overview : found);
    if (here) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  page = found.mount(root, values, session);
  page.update?.();
}

function navigate() {
  open();
  root.querySelector("h1")?.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function update() {
  say(link, live.connected ? `generation ${live.status?.generation ?? ""}` : "reconnecting");
  link.classList.toggle("on", live.connected);
  warn(live.status?.controller.silent_s ?? null);
  page?.update?.();
}

// What holds up everything, on every page.
function warn(seconds) {
  if (seconds !== null) say(silence, span(seconds));
  if (notice.hidden === (seconds === null)) return;
  notice.hidden = seconds === null;
  if (notice.hidden) show(notice);
  else show(notice, el("b", {}, "Ray's GCS has not answered for ", silence, "."), " Nothing is applied, started or replaced until it does; what serves goes on.");
}

function signedOut() {
  end.abort();
  page?.unmount?.();
  page = null;
  warn(null);
  localStorage.removeItem("serveconf-key");
  say(link, "");
  document.getElementById("leave").hidden = true;
  document.querySelector(".top nav").hidden = true;
  removeEventListener("hashchange", navigate);
  show(root, el("div", { class: "alone" }, el("h1", {}, "Sign in"),
    el("p", {}, "Run ", el("code", {}, "serveconf dashboard"), " and open the address that it prints."),
    el("p", { class: "muted" }, "It works once, from the machine that has the control API's token, and signs this browser in for twelve hours.")));
}

function chooseTheme() {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
  localStorage.setItem("serveconf-theme", document.documentElement.dataset.theme);
}

async function begin() {
  const theme = localStorage.getItem("serveconf-theme");
  if (theme) document.documentElement.dataset.theme = theme;
  document.getElementById("theme").addEventListener("click", chooseTheme);
  document.getElementById("leave").addEventListener("click", async () => { await post("/sign-out").catch(() => {}); signedOut(); });
  document.addEventListener("signed-out", signedOut, { once: true });
  try {
    session.role = (await get("/session")).role;
  } catch (error) {
    if (error.status !== 401) show(root, el("div", { class: "alone" }, el("p", {}, error.message)));
    return;
  }
  addEventListener("hashchange", navigate);
  listen(update);
  open();
  follow(end.signal);
}

begin();

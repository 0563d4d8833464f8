// Which deployment takes a request: the live table, and a way to try a request without sending it.
import { get } from "./api.js";
import { el, show } from "./dom.js";
import { live } from "./live.js";
import { badge, deploymentLink, errorBox, table } from "./parts.js";

export const title = "Routes";
const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
const PAUSE_MS = 200; // while somebody types

export function mount(root) {
  const body = el("div", { class: "body" });
  const trial = tryIt(() => draw());
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, title)), trial.element,
    el("section", { class: "card" }, el("header", {}, el("h2", {}, "Live table")), body));
  let routes = {}, drawn = "", generation = null;
  const draw = () => {
    const rows = rowsOf(routes), taker = trial.taker(), text = JSON.stringify([rows, taker]);
    if (text === drawn) return;
    drawn = text;
    if (!rows.length) { show(body, el("p", { class: "empty" }, "No route is live.")); return; }
    const shown = table(["Rule", "Deployment", "State", "Ready"], rows.map(({ rule, stack, name, state, ready }) => [
      el("code", {}, rule), stack === null ? name : el("a", { href: deploymentLink(stack, name) }, `${stack}/${name}`),
      state ? badge(state) : "", ready]), { numeric: [3] });
    rows.forEach(({ stack, name }, index) => {
      if (taker && stack === taker.stack && name === taker.deployment) shown.querySelectorAll("tbody tr")[index].classList.add("found");
    });
    show(body, shown);
  };
  return {
    async update() {
      if (!live.status) return;
      if (live.status.generation !== generation) {
        generation = live.status.generation;
        try {
          routes = await get("/routes");
        } catch (error) {
          show(body, errorBox(error));
          return;
        }
        trial.again();
      }
      draw();
    },
    unmount: trial.end,
  };
}

// The proxies' own rules answer, so that host, headers and query count as they do for a real request.
function tryIt(changed) {
  const method = el("select", {}, METHODS.map((name) => el("option", {}, name)));
  const path = el("input", { type: "text", placeholder: "/shop/items/7?v=2", size: "26", spellcheck: "false", autocapitalize: "off" });
  const host = el("input", { type: "text", placeholder: "any", size: "18", spellcheck: "false", autocapitalize: "off" });
  const headers = el("textarea", { rows: "2", cols: "34", placeholder: "x-beta: 1", spellcheck: "false", autocapitalize: "off" });
  const verdict = el("div", { "aria-live": "polite" });
  let found = null, timer = 0, asked = 0;
  const ask = async () => {
    const mine = ++asked;
    if (!path.value) { found = null; show(verdict); changed(); return; }
    const query = new URLSearchParams({ method: method.value, url: path.value.startsWith("/") ? path.value : `/${path.value}` });
    if (host.value) query.append("header", `host: ${host.value}`);
    for (const line of headers.value.split("\n")) if (line.includes(":")) query.append("header", line);
    try {
      const told = await get(`/routes/test?${query}`);
      if (mine !== asked) return;
      found = told.deployment ? told : null;
      show(verdict, showVerdict(told));
    } catch (error) {
      if (mine !== asked) return;
      found = null;
      show(verdict, el("p", { class: "bad" }, error.message));
    }
    changed();
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(ask, PAUSE_MS); };
  for (const field of [method, path, host, headers]) field.addEventListener("input", soon);
  return {
    element: el("section", { class: "card" }, el("header", {}, el("h2", {}, "Try it"), el("span", { class: "muted small" }, "who would take this request; nothing is sent")),
      el("div", { class: "body" }, el("div", { class: "fields" }, el("label", {}, "Method", method), el("label", {}, "Path", path),
        el("label", {}, "Host", host), el("label", {}, "Headers", headers)), verdict)),
    taker: () => found,
    again: () => { if (path.value) ask(); },
    end: () => { clearTimeout(timer); asked += 1; },
  };
}

function showVerdict({ status, stack, deployment, rule, why, others }) {
  const answer = deployment
    ? el("p", {}, el("a", { href: deploymentLink(stack, deployment) }, `${stack}/${deployment}`), " takes it by ", el("code", {}, rule), `: ${why}.`)
    : el("p", {}, status ? el("b", { class: "warn" }, `${status} `) : null, `${why}.`);
  const rows = others.map((other) => [`${other.stack}/${other.deployment}`, el("code", {}, other.rule), el("span", { class: "muted" }, other.why)]);
  return el("div", {}, answer, rows.length ? table(["Not", "Rule", "Why"], rows) : null);
}

function rowsOf(routes) {
  const all = (live.status?.stacks ?? []).flatMap((stack) => stack.deployments.map((deployment) => ({ stack: stack.name, ...deployment })));
  return Object.entries(routes).sort().map(([rule, name]) => {
    const named = all.filter((deployment) => deployment.name === name && deployment.route_prefix);
    const found = named.find((deployment) => deployment.route_prefix === rule) ?? named.find((deployment) => rule.includes(deployment.route_prefix));
    const ready = found?.replicas.filter((replica) => replica.state === "Ready").length ?? 0;
    return { rule, name, stack: found?.stack ?? null, state: found?.state ?? null, ready: found ? `${ready}/${found.replicas.length}` : "" };
  });
}

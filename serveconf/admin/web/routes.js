// Which deployment takes a request: the live table, and a way to try it.
import { get } from "./api.js";
import { el, say, show } from "./dom.js";
import { live } from "./live.js";
import { badge, deploymentLink, errorBox } from "./parts.js";

export const title = "Routes";

export function mount(root) {
  const path = el("input", { type: "text", placeholder: "/shop/items/7", size: "28", spellcheck: "false", autocapitalize: "off" });
  const verdict = el("p", { role: "status" }), body = el("tbody");
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, title)),
    el("section", { class: "card" }, el("header", {}, el("h2", {}, "Try it")), el("div", { class: "body" },
      el("div", { class: "fields" }, el("label", {}, "Path", path)), verdict)),
    el("section", { class: "card" }, el("div", { class: "body scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ["Prefix", "Deployment", "State", "Replicas"].map((text) => el("th", { scope: "col" }, text)))), body))));
  let routes = {}, drawn = "";
  const draw = () => {
    const rows = rowsOf(routes), found = path.value ? match(Object.keys(routes), path.value) : null;
    const text = JSON.stringify([rows, found]);
    if (text === drawn) return;
    drawn = text;
    show(body, rows.map(({ prefix, stack, name, state, ready }) => el("tr", { class: prefix === found ? "found" : null },
      el("td", {}, el("code", {}, prefix)), el("td", {}, stack === null ? name : el("a", { href: deploymentLink(stack, name) }, `${stack}/${name}`)),
      el("td", {}, state ? badge(state) : ""), el("td", { class: "num" }, ready))));
    if (!rows.length) show(body, el("tr", {}, el("td", { colspan: "4", class: "empty" }, "No route is live.")));
    if (!path.value) say(verdict, "");
    else if (found === null) say(verdict, `No route takes ${path.value}: the proxy answers 404.`);
    else say(verdict, `${path.value} goes to ${routes[found]}, by the prefix ${found}; the app sees root_path ${found === "/" ? "“”" : found}.`);
  };
  path.addEventListener("input", draw);
  let generation = null;
  const update = async () => {
    if (!live.status) return;
    if (live.status.generation !== generation) {
      generation = live.status.generation;
      try {
        routes = await get("/routes");
      } catch (error) {
        show(root, errorBox(error));
        return;
      }
    }
    draw();
  };
  return { update };
}

function rowsOf(routes) {
  const all = (live.status?.stacks ?? []).flatMap((stack) => stack.deployments.map((deployment) => ({ stack: stack.name, ...deployment })));
  return Object.entries(routes).sort().map(([prefix, name]) => {
    const found = all.find((deployment) => deployment.route_prefix === prefix && deployment.name === name);
    const ready = found?.replicas.filter((replica) => replica.state === "Ready").length ?? 0;
    return { prefix, name, stack: found?.stack ?? null, state: found?.state ?? null, ready: found ? `${ready}/${found.replicas.length}` : "" };
  });
}

// The longest prefix at a path boundary, as the proxies match.
export function match(prefixes, path) {
  const fits = prefixes.filter((prefix) => prefix === "/" || path === prefix || path.startsWith(`${prefix}/`));
  return fits.sort((one, other) => other.length - one.length)[0] ?? null;
}

// Every stack and deployment: state, replicas, and how they do just now.
import { sparkline } from "./charts.js";
import { el, keep, say, show } from "./dom.js";
import { duration, plural, rate } from "./format.js";
import { ACTIVE, ERRORS, live, P50, P99, points, QUEUED, REQUESTS, together } from "./live.js";
import { canaryText, deploymentLink, dots, liveBadge } from "./parts.js";

export const title = "Overview";

export function mount(root) {
  const sums = el("dl", { class: "sums" }), stacks = el("div"), find = el("input", { type: "search", placeholder: "name or route" });
  const empty = el("p", { class: "empty", hidden: true }, "Nothing is applied yet: serveconf apply serve.yaml");
  const figures = [
    figure(sums, "Requests", (all) => [rate(all.at(-1)?.[REQUESTS] ?? 0), "/s"], REQUESTS),
    figure(sums, "Errors (5xx)", (all) => [rate(all.at(-1)?.[ERRORS] ?? 0), "/s"], ERRORS, "third"),
    figure(sums, "Slowest p99", (all) => [duration(all.at(-1)?.[P99]), ""], P99, "second"),
    figure(sums, "In flight", (all) => [String(all.at(-1)?.[ACTIVE] ?? 0), ` ${all.at(-1)?.[QUEUED] ?? 0} waiting`], ACTIVE),
  ];
  const ready = el("dd"), proxies = el("dd");
  sums.append(el("div", { class: "sum" }, el("dt", {}, "Replicas ready"), ready), el("div", { class: "sum" }, el("dt", {}, "Proxies ready"), proxies));
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, title), el("div", { class: "end" }, el("label", {}, "Find", find))), sums, stacks, empty);
  const update = () => {
    const status = live.status;
    if (!status) return;
    const all = status.stacks.flatMap((stack) => stack.deployments.map((deployment) => `${stack.name}/${deployment.name}`));
    const curve = together(all);
    for (const one of figures) one(curve);
    const replicas = status.stacks.flatMap((stack) => stack.deployments.flatMap((deployment) => deployment.replicas));
    share(ready, replicas.filter((replica) => replica.state === "Ready").length, replicas.length);
    share(proxies, status.proxies.filter((proxy) => proxy.state === "Ready").length, status.proxies.length);
    empty.hidden = status.stacks.length > 0;
    const wanted = find.value.trim().toLowerCase();
    keep(stacks, status.stacks, (stack) => stack.name, (stack) => stackCard(stack, () => wanted));
    for (const { filter } of stacks.kept.values()) filter(wanted);
  };
  find.addEventListener("input", update);
  return { update };
}

function figure(parent, name, text, field, kind) {
  const value = el("span"), unit = el("small"), line = sparkline(kind);
  parent.append(el("div", { class: "sum" }, el("dt", {}, name), el("dd", {}, value, unit), el("dd", {}, line.element)));
  return (curve) => {
    const [first, rest] = text(curve);
    say(value, first);
    say(unit, rest);
    line.update(curve.map((point) => point[field]));
  };
}

function share(element, count, all) {
  show(element, String(count), el("small", {}, ` of ${all}`));
}

function stackCard(stack) {
  const state = liveBadge(), note = el("span", { class: "muted small" }), list = el("ul", { class: "rows" });
  const titles = ["Deployment", "State", "Replicas", "Requests", "Duration p50 / p99", "Errors", "Waiting"];
  const id = `stack-${stack.name}`, warnings = el("p", { class: "why warn", hidden: true });
  const element = el("section", { class: "card", "aria-labelledby": id },
    el("header", {}, el("h2", { id }, stack.name), state.element, note,
      el("a", { class: "end small", href: `#/revisions/${encodeURIComponent(stack.name)}` }, "Revisions")), warnings,
    el("div", { class: "row titles", "aria-hidden": "true" }, titles.map((text) => el("span", {}, text))), list);
  return {
    element,
    update(now) {
      state.update(now.state);
      say(note, [now.revision === null ? null : `revision ${now.revision}`, plural(now.deployments.length, "deployment"),
        now.source ? sourceText(now.source) : null].filter(Boolean).join(", "));
      say(warnings, now.warnings.join("; "));
      warnings.hidden = !now.warnings.length;
      keep(list, now.deployments, (deployment) => deployment.name, (deployment) => deploymentRow(now.name, deployment));
    },
    filter(wanted) {
      let found = 0;
      for (const row of list.kept.values()) found += row.filter(wanted) ? 1 : 0;
      element.hidden = Boolean(wanted) && !found;
    },
  };
}

// As `serveconf status` says it.
function sourceText({ location, branch, commit, in_sync: inSync }) {
  const what = [branch, commit?.slice(0, 12)].filter(Boolean).join(" ");
  return `${location}${what ? ` (${what})` : ""}: ${inSync ? "in sync" : "not in sync"}`;
}

function deploymentRow(stack, { name }) {
  const key = `${stack}/${name}`, state = liveBadge(), route = el("span", { class: "mono small" });
  const replicas = dots(), requests = sparkline(), slow = sparkline("second"), why = el("div", { hidden: true });
  const texts = { requests: el("b"), slow: el("b"), errors: el("b"), queued: el("b") };
  const cell = (label, ...parts) => el("div", { class: "cell" }, el("span", { class: "label" }, label), parts);
  const element = el("li", {}, el("div", { class: "row" },
    el("div", { class: "name" }, el("a", { href: deploymentLink(stack, name) }, name), route),
    el("div", { class: "state" }, state.element), el("div", { class: "replicas" }, replicas.element),
    cell("Requests", texts.requests, requests.element), cell("Duration", texts.slow, slow.element),
    cell("Errors", texts.errors), cell("Waiting", texts.queued), why));
  return {
    element,
    update(deployment) {
      const curve = points(key), now = curve.at(-1) ?? [0, 0, null, null, 0, 0];
      state.update(deployment.state);
      say(route, deployment.route_prefix ?? "no route");
      replicas.update(deployment);
      say(texts.requests, `${rate(now[REQUESTS])}/s`);
      say(texts.slow, now[P99] === null ? "–" : `${duration(now[P50])} / ${duration(now[P99])}`);
      say(texts.errors, `${rate(now[ERRORS])}/s`);
      texts.errors.className = now[ERRORS] ? "bad" : "";
      say(texts.queued, String(now[QUEUED]));
      requests.update(curve.map((point) => point[REQUESTS]));
      slow.update(curve.map((point) => point[P99]));
      say(why, deployment.message || canaryText(deployment));
      why.className = `why ${deployment.message ? "warn" : "busy"}`;
      why.hidden = !why.textContent;
      this.text = `${stack}/${name} ${deployment.route_prefix ?? ""}`.toLowerCase();
    },
    filter(wanted) {
      element.hidden = Boolean(wanted) && !this.text.includes(wanted);
      return !element.hidden;
    },
  };
}

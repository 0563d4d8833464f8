// One deployment: its curves, where its replicas are, how long requests take, and what its replicas write.
import { get, lines } from "./api.js";
import { chart, histogram } from "./charts.js";
import { el, say, show } from "./dom.js";
import { duration, rate } from "./format.js";
import { ACTIVE, ERRORS, live, P50, P99, points, QUEUED, REQUESTS } from "./live.js";
import { canaryText, errorBox, liveBadge, table, badge } from "./parts.js";

export const title = (stack, name) => `${stack}/${name}`;
const MOST_LINES = 2000;

export function mount(root, [stack, name]) {
  const key = `${stack}/${name}`, state = liveBadge(), why = el("p", { class: "warn" }), facts = el("p", { class: "muted" });
  const charts = [
    chart("Requests", [{ name: "requests/s", of: (point) => point[REQUESTS] }, { name: "errors/s", kind: "third", of: (point) => point[ERRORS] }], rate),
    chart("Duration", [{ name: "p50", of: (point) => point[P50] }, { name: "p99", kind: "second", of: (point) => point[P99] }], duration),
    chart("Load", [{ name: "in flight", of: (point) => point[ACTIVE] }, { name: "waiting", kind: "second", of: (point) => point[QUEUED] }], String),
  ];
  const replicas = el("div", { class: "body" }), latency = el("div", { class: "body" });
  const log = el("div", { class: "log", tabindex: "0", role: "log", "aria-live": "off", "aria-label": `Log of ${key}` });
  const part = (name, body) => el("section", { class: "card" }, el("header", {}, el("h2", {}, name)), body);
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, key), state.element), why, facts,
    el("div", { class: "grid" }, charts.map((one) => one.element)), part("Replicas", replicas),
    part("How long requests took in the last five minutes", latency), part("Log", log));
  const end = new AbortController(), base = `/stacks/${encodeURIComponent(stack)}/deployments/${encodeURIComponent(name)}`;
  followLog(`${base}/logs?follow=true&tail=100`, log, end.signal);
  const look = async () => {
    try {
      const { bounds_s: bounds, buckets } = await get(`${base}/figures`, { signal: end.signal });
      const labels = [...bounds.map((bound) => `≤ ${duration(bound * 1000)}`), `> ${duration(bounds.at(-1) * 1000)}`];
      const first = buckets.findIndex(Boolean), last = buckets.findLastIndex(Boolean); // and one beside them
      const rows = labels.map((label, index) => [label, buckets[index]]).slice(Math.max(0, first - 1), last + 2);
      show(latency, first >= 0 ? histogram(rows) : el("p", { class: "muted" }, "No request."));
    } catch (error) {
      if (!end.signal.aborted) show(latency, errorBox(error));
    }
  };
  look();
  const timer = setInterval(look, 5000);
  let drawn = "";
  return {
    update() {
      const found = live.status?.stacks.find((one) => one.name === stack)?.deployments.find((one) => one.name === name);
      for (const one of charts) one.update(points(key));
      if (!found) { say(facts, live.status ? "There is no such deployment." : ""); return; }
      state.update(found.state);
      say(why, found.message || canaryText(found));
      say(facts, `${found.route_prefix ?? "no route"}, version ${found.version}`);
      const text = JSON.stringify(found.replicas);
      if (text === drawn) return;
      drawn = text;
      show(replicas, table(["Replica", "State", "Node", "Pid", "In flight", "Version"], found.replicas.map((replica) => [
        el("code", {}, replica.id), badge(replica.state), el("code", {}, replica.node_id.slice(0, 12)), String(replica.pid || ""),
        String(replica.ongoing), el("code", {}, replica.version)]), { numeric: [3, 4] }));
    },
    unmount() { end.abort(); clearInterval(timer); },
  };
}

async function followLog(path, log, signal) {
  const known = new Map();
  try {
    for await (const news of lines(path, signal)) {
      const below = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      for (const { replica, line } of news) {
        if (!known.has(replica)) known.set(replica, known.size % 6);
        log.append(el("div", {}, el("span", { class: `who who${known.get(replica)}` }, replica), line));
      }
      while (log.childElementCount > MOST_LINES) log.firstChild.remove();
      if (below) log.scrollTop = log.scrollHeight;
    }
  } catch (error) {
    if (!signal.aborted) log.append(el("div", { class: "bad" }, error.message));
  }
}

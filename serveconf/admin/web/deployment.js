// One deployment: its curves, where its replicas are, how long requests take, and what its replicas write.
import { get, lines } from "./api.js";
import { chart, histogram } from "./charts.js";
import { el, keep, say, show } from "./dom.js";
import { followEvents, keyOf, line as eventLine, merged } from "./events.js";
import { duration, plural, rate, span } from "./format.js";
import { ACTIVE, ERRORS, live, P50, P99, points, QUEUED, REQUESTS } from "./live.js";
import { badge, canaryText, errorBox, liveBadge, shortId, table } from "./parts.js";

export const title = (stack, name) => `${stack}/${name}`;
const MOST_LINES = 2000;
const MOST_EVENTS = 8;
const OF_ALL = ["apply", "rollback", "pin", "canary"]; // what is told of a stack and concerns each of its deployments

export function mount(root, [stack, name]) {
  const key = `${stack}/${name}`, state = liveBadge(), told = el("div", { class: "told" });
  const charts = [
    chart("Requests/s", [{ name: "all", of: (point) => point[REQUESTS] }, { name: "errors", kind: "third", of: (point) => point[ERRORS] }], rate),
    chart("Duration", [{ name: "p50", of: (point) => point[P50] }, { name: "p99", kind: "second", of: (point) => point[P99] }], duration),
    chart("Load", [{ name: "in flight", of: (point) => point[ACTIVE] }, { name: "waiting", kind: "second", of: (point) => point[QUEUED] }], String),
  ];
  const replicas = el("div", { class: "body" }), latency = el("div", { class: "body" }), answers = el("div", { class: "body" }), happened = el("ol", { class: "events", reversed: true });
  const log = el("div", { class: "log", tabindex: "0", role: "log", "aria-live": "off", "aria-label": `Log of ${key}` });
  const operations = el("ul", { class: "body operations" });
  const part = (name, body) => el("section", { class: "card" }, el("header", {}, el("h2", {}, name)), body);
  const offered = part("Operations", operations);
  const all = el("div", { hidden: true }, el("div", { class: "grid three" }, charts.map((one) => one.element)), part("Replicas", replicas),
    el("div", { class: "grid" }, part("How long requests took in the last five minutes", latency), part("Answers", answers)), offered,
    part("What happened", happened), part("Log", log));
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, key), state.element), told, all);
  state.element.hidden = true;
  const end = new AbortController(), base = `/stacks/${encodeURIComponent(stack)}/deployments/${encodeURIComponent(name)}`;
  let events = [];
  followEvents(`/events?follow=true&stack=${encodeURIComponent(stack)}`, end.signal, (news) => {
    events = merged(events, news.filter((event) => event.deployment === name || (!event.deployment && OF_ALL.includes(event.kind)))).slice(0, MOST_EVENTS);
    keep(happened, events, keyOf, eventLine);
  }, (error) => show(happened, el("li", { class: "bad" }, error.message)));
  const look = async () => {
    try {
      const { bounds_s: bounds, buckets, answers: given, operations: known } = await get(`${base}/figures`, { signal: end.signal });
      const labels = [...bounds.map((bound) => `≤ ${duration(bound * 1000)}`), `> ${duration(bounds.at(-1) * 1000)}`];
      const first = buckets.findIndex(Boolean), last = buckets.findLastIndex(Boolean); // and one beside them
      const rows = labels.map((label, index) => [label, buckets[index]]).slice(Math.max(0, first - 1), last + 2);
      show(answers, answersTable(given));
      show(operations, known.map((operation) => el("li", {}, el("code", {}, operation))));
      offered.hidden = !known.length;
      show(latency, first >= 0 ? histogram(rows) : el("p", { class: "muted" }, "No request."));
    } catch (error) {
      if (!end.signal.aborted) show(latency, errorBox(error));
    }
  };
  let timer = 0, drawn = "";
  const begin = () => {
    look();
    timer = setInterval(look, 5000);
    followLog(`${base}/logs?follow=true&tail=100`, `${stack}.${name}.`, log, end.signal);
  };
  return {
    update() {
      const found = live.status?.stacks.find((one) => one.name === stack)?.deployments.find((one) => one.name === name);
      state.element.hidden = !found;
      if (live.status) show(told, found ? sentences(found) : el("p", {}, "There is no such deployment. ", el("a", { href: "#/" }, "All of them")));
      if (found && all.hidden && !timer) begin();
      all.hidden = !found && !timer; // one that is taken away keeps what was seen of it
      if (!found) return;
      for (const one of charts) one.update(points(key));
      state.update(found.state);
      const rows = found.replicas.map((replica) => ({ ...replica, age: replica.started ? span((Date.now() - new Date(replica.started)) / 1000) : "" }));
      const text = JSON.stringify(rows);
      if (text === drawn) return;
      drawn = text;
      show(replicas, rows.length ? table(["Replica", "State", "Age", "Node", "Pid", "In flight", "Version"], rows.map((replica) => [
        shortId(replica.id, stack, name), badge(replica.state), replica.age, replica.node ?? el("code", {}, replica.node_id.slice(0, 12)),
        String(replica.pid || ""), String(replica.ongoing), el("code", {}, replica.version)]), { numeric: [4, 5] }) : el("p", { class: "muted" }, "None."));
    },
    unmount() { end.abort(); clearInterval(timer); },
  };
}

function answersTable(given) {
  const rows = Object.entries(given).sort().flatMap(([method, statuses]) => Object.entries(statuses).map(([status, count]) => [
    method, el("span", { class: status >= 500 ? "bad" : status >= 400 ? "warn" : null }, status), count.toLocaleString()]));
  return rows.length ? table(["Method", "Status", "Since it exists"], rows, { numeric: [2] }) : el("p", { class: "muted" }, "None yet.");
}

// Where it is reached, why it is in its state, and why it has as many replicas as it has.
function sentences({ route_prefix: route, version, message, canary, autoscaling }) {
  return [
    el("p", { class: "muted" }, route ? el("code", {}, route) : "no route", ", version ", el("code", {}, version)),
    message ? el("p", { class: "warn" }, message) : null,
    canary ? el("p", { class: "busy" }, canaryText({ canary })) : null,
    autoscaling ? el("p", { class: "muted" }, `${autoscaling.desired} of ${autoscaling.min} to ${plural(autoscaling.max, "replica")}: ${autoscaling.reason}`) : null,
  ];
}

async function followLog(path, prefix, log, signal) {
  const known = new Map();
  try {
    for await (const news of lines(path, signal)) {
      const below = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
      for (const { replica, line } of news) {
        if (!known.has(replica)) known.set(replica, known.size % 6);
        log.append(el("div", {}, el("span", { class: `who who${known.get(replica)}`, title: replica }, replica.startsWith(prefix) ? replica.slice(prefix.length) : replica), line));
      }
      while (log.childElementCount > MOST_LINES) log.firstChild.remove();
      if (below) log.scrollTop = log.scrollHeight;
    }
  } catch (error) {
    if (!signal.aborted) log.append(el("div", { class: "bad" }, error.message));
  }
}

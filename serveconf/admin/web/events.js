// What was done and what happened by itself, as it comes; the newest first.
import { lines } from "./api.js";
import { el, keep, show } from "./dom.js";
import { clock, span } from "./format.js";
import { deploymentLink, errorBox } from "./parts.js";

export const title = "Events";
const SHOWN = 500;
const KINDS = ["apply", "rollback", "scale", "replace", "heal", "drift", "quarantine", "pin", "canary", "proxy", "node", "controller", "token"];

export function mount(root) {
  const list = el("ol", { class: "events", reversed: true }), empty = el("p", { class: "empty" }, "Nothing has happened.");
  const kind = el("select", {}, el("option", { value: "" }, "all"), KINDS.map((name) => el("option", {}, name)));
  const words = el("input", { type: "search", placeholder: "name or text" });
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, title),
    el("div", { class: "end fields" }, el("label", {}, "Kind", kind), el("label", {}, "Find", words))),
  el("section", { class: "card", "aria-label": "Events, the newest first" }, list, empty));
  const end = new AbortController();
  let events = [];
  const draw = () => {
    const wanted = words.value.trim().toLowerCase();
    const found = events.filter((event) => (!kind.value || event.kind === kind.value)
      && `${event.stack ?? ""}/${event.deployment ?? ""} ${event.message}`.toLowerCase().includes(wanted)).slice(0, SHOWN);
    empty.hidden = found.length > 0;
    keep(list, found, keyOf, line);
  };
  kind.addEventListener("change", draw);
  words.addEventListener("input", draw);
  followEvents("/events?follow=true", end.signal, (news) => { events = merged(events, news); draw(); },
    (error) => show(root, errorBox(error)));
  return { unmount: () => end.abort() };
}

export async function followEvents(path, signal, take, fail) {
  while (!signal.aborted) {
    try {
      for await (const news of lines(path, signal)) take(news);
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      if (error.status) { fail(error); return; }
    }
    await new Promise((wake) => setTimeout(wake, 1000));
  }
}

// An event that is counted up comes again: the newer one takes its place, on top.
export function merged(events, news) {
  for (const event of news) {
    const first = event.data.first ?? event.time;
    events = [event, ...events.filter((other) => !(sameKind(other, event) && (other.data.first ?? other.time) === first))];
  }
  return events.slice(0, 2000);
}

function sameKind(one, other) {
  return one.kind === other.kind && one.stack === other.stack && one.deployment === other.deployment;
}

export const keyOf = (event) => [event.kind, event.stack, event.deployment, event.data.first ?? event.time, event.message, event.count].join("|");

export function line(event) {
  const where = [event.stack, event.deployment].filter(Boolean).join("/");
  const seconds = event.data.first ? (new Date(event.time) - new Date(event.data.first)) / 1000 : 0;
  const failed = event.data.code ? "bad" : null; // an apply that came to nothing, or was taken back
  const colors = { quarantine: "bad", heal: "warn", drift: "warn", rollback: "warn", apply: "good", pin: "pinned", scale: "busy", replace: "busy", canary: "busy" };
  return {
    element: el("li", {},
      el("time", { class: "muted small num", datetime: event.time }, clock(event.time)),
      el("span", {}, el("span", { class: `badge ${failed ?? colors[event.kind] ?? ""}` }, event.kind)),
      el("span", { class: "where small" }, event.deployment ? el("a", { href: deploymentLink(event.stack, event.deployment) }, where) : where || "cluster"),
      el("span", { class: "text" }, event.message),
      el("span", { class: "times" }, event.count > 1 ? `${event.count} times in ${span(seconds)}` : "")),
  };
}

// The revisions of a stack: who, when, what; the difference of spec and code; and the way back.
import { get, lines, post } from "./api.js";
import { asLines, difference, showDifference } from "./diff.js";
import { el, show } from "./dom.js";
import { clock, duration, plural } from "./format.js";
import { live } from "./live.js";
import { badge, errorBox, openDialog, table } from "./parts.js";

export const title = "Revisions";

export function mount(root, [chosen], session) {
  const choice = el("select"), list = el("div"), detail = el("div");
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, title), el("div", { class: "end" }, el("label", {}, "Stack", choice))), list, detail);
  let names = "", known = "", asked = 0, opened = null;
  const open = async (revisions, one) => {
    const mine = ++asked; // who clicks while another one loads sees what was clicked last
    opened = one.revision;
    list.querySelectorAll("tbody tr").forEach((row, index) => row.classList.toggle("chosen", revisions[index] === one));
    try {
      const shown = await look(revisions, one, session, load);
      if (mine === asked) show(detail, shown);
    } catch (error) {
      if (mine === asked) show(detail, errorBox(error));
    }
  };
  const load = async (wanted = null) => {
    const stack = choice.value;
    try {
      const revisions = await get(`/stacks/${encodeURIComponent(stack)}/revisions`);
      if (stack !== choice.value) return;
      show(list, el("section", { class: "card" }, el("div", { class: "body" }, table(["Revision", "When", "Who", "Outcome", "What"], revisions.map((one) => [
        el("button", { class: "link-like", type: "button", onclick: () => open(revisions, one) }, String(one.revision)),
        el("time", { datetime: one.time }, clock(one.time)), who(one), badge(one.outcome), one.summary])))));
      if (revisions.length) await open(revisions, revisions.find((one) => one.revision === wanted) ?? revisions[0]);
    } catch (error) {
      show(list, errorBox(error));
    }
  };
  choice.addEventListener("change", () => load());
  return {
    update() {
      const stacks = live.status?.stacks ?? [], found = stacks.map((stack) => stack.name);
      const { revision, state } = stacks.find((stack) => stack.name === choice.value) ?? {};
      const now = `${choice.value} ${revision} ${state}`, moved = now !== known;
      known = now;
      if (found.join() === names) {
        if (moved && choice.value) load(opened); // whoever looks at one goes on looking at it
        return;
      }
      names = found.join();
      const before = choice.value || chosen;
      show(choice, found.map((name) => el("option", {}, name)));
      if (found.includes(before)) choice.value = before;
      known = "";
      if (found.length) load();
    },
  };
}

// Who says to have been it, and what let them in.
function who({ author, token }) {
  return el("span", {}, author, token ? el("code", { class: "muted token", title: "what let them in: its kind, and a fingerprint of it" }, token) : null);
}

async function look(revisions, one, session, reload) {
  const base = `/stacks/${encodeURIComponent(one.stack)}/revisions/`;
  const now = await get(base + one.revision);
  const older = revisions.find((other) => other.revision < one.revision && other.outcome === "applied"); // what served before it
  const before = older ? await get(base + older.revision) : null;
  const files = Object.entries(now.packages).flatMap(([name, { files }]) => {
    const known = before?.packages[name]?.files ?? {};
    return [...new Set([...Object.keys(files), ...Object.keys(known)])].filter((path) => files[path] !== known[path]).map((path) => `${name}: ${path}`);
  });
  const way = el("button", { type: "button", class: "danger", hidden: session.role !== "write" || one === revisions[0],
    onclick: () => back(one, reload) }, "Roll back to this");
  return el("section", { class: "card" }, el("header", {}, el("h2", {}, `Revision ${one.revision}`), badge(one.outcome), el("div", { class: "end" }, way)),
    el("div", { class: "body" },
      el("dl", { class: "facts" }, Object.entries({ Who: who(now), Commit: now.commit, Source: now.source, ...receipt(now.receipt) }).filter(([, value]) => value)
        .flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, value)])),
      now.failure ? el("p", { class: "bad" }, now.failure.message) : null,
      el("ul", { class: "steps" }, now.actions.map((action) => el("li", {}, el("b", {}, action.action), el("span", {}, action.deployment ?? "http"), el("span", { class: "muted" }, action.reason)))),
      el("p", { class: "muted small" }, older ? `The spec, beside revision ${older.revision}:` : "The spec:"),
      showDifference(difference(before ? asLines(before.spec) : [], asLines(now.spec)), `Difference of the spec to revision ${older?.revision ?? "none"}`),
      files.length ? el("p", { class: "muted small" }, `Changed files: ${files.slice(0, 200).join(", ")}`) : null));
}

// What it did to the traffic, in words; empty where it has not been counted yet.
function receipt({ requests, failed, retried, max_gap_ms: gap, streams_kept: kept, streams_closed: closed }) {
  if (requests === undefined) return {};
  return {
    "Requests meanwhile": requests ? `${requests}, of which ${failed} failed and ${retried} were tried again; the longest gap was ${duration(gap)}` : "none",
    Streams: kept || closed ? `${kept} kept, ${closed} closed` : "",
  };
}

// The plan first: what it would do is shown before anybody can say yes, and holds only for what the stack is now.
function back(one, reload) {
  const base = `/stacks/${encodeURIComponent(one.stack)}`;
  const plan = el("div", {}, el("p", { class: "muted" }, "Looking what would change…")), told = el("ol", { class: "steps", "aria-live": "polite" });
  const go = el("button", { type: "button", class: "danger", disabled: true }, "Roll back"), stop = el("button", { type: "button" }, "Cancel");
  const dialog = openDialog(`Roll back ${one.stack} to revision ${one.revision}?`, plan, told, el("div", { class: "actions" }, stop, go));
  let revision = null;
  stop.addEventListener("click", () => dialog.close());
  get(`${base}/revisions/${one.revision}/plan`).then((found) => {
    revision = found.base_revision;
    show(plan, showPlan(found), el("p", { class: "muted small" }, "The stack is then pinned: what watches its files leaves it alone until somebody applies by hand or resumes."));
    go.disabled = false;
  }).catch((error) => show(plan, errorBox(error)));
  go.addEventListener("click", async () => {
    go.disabled = true;
    try {
      const { operation } = await post(`${base}/rollback`, { revision: one.revision, author: "dashboard", source: "dashboard" }, { revision });
      for await (const news of lines(`/operations/${operation}/events`)) for (const event of news) tell(told, event);
      go.hidden = true;
      stop.textContent = "Close";
      await reload();
    } catch (error) {
      told.append(el("li", { class: "bad" }, error.message));
    }
  });
}

function showPlan({ changed, actions, warnings }) {
  if (!changed) return el("p", {}, "Nothing would change but the pin.");
  return el("div", {},
    el("table", {}, el("thead", {}, el("tr", {}, ["Step", "Of", "Cost", "Why"].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, actions.map((action) => el("tr", {}, el("td", {}, el("b", {}, action.action)), el("td", {}, action.deployment ?? "http"),
        el("td", {}, action.cost), el("td", { class: "muted" }, action.reason))))),
    (warnings ?? []).map((text) => el("p", { class: "warn small" }, text)));
}

function tell(told, event) {
  if (event.event === "phase") told.append(el("li", {}, el("b", {}, event.phase), el("span", {}, event.message ?? "")));
  if (event.event === "wait") told.append(el("li", {}, event.message));
  if (event.event !== "result") return;
  const { requests, failed, duration_s: seconds } = event.receipt;
  told.append(el("li", {}, badge(event.outcome), el("span", {}, `after ${seconds.toFixed(1)} s; ${plural(requests, "request")} meanwhile, ${failed} failed`)));
  for (const problem of event.problems) told.append(el("li", { class: "bad" }, problem.message));
}

// The revisions of a stack: who, when, what; the difference of spec and code; and the way back.
import { get, lines, post } from "./api.js";
import { asLines, difference, showDifference } from "./diff.js";
import { el, show } from "./dom.js";
import { clock } from "./format.js";
import { live } from "./live.js";
import { badge, errorBox, openDialog, table } from "./parts.js";

export const title = "Revisions";

export function mount(root, [chosen], session) {
  const choice = el("select"), list = el("div"), detail = el("div");
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, title), el("div", { class: "end" }, el("label", {}, "Stack", choice))), list, detail);
  let names = "";
  const load = async () => {
    try {
      const revisions = await get(`/stacks/${encodeURIComponent(choice.value)}/revisions`);
      const open = (one) => look(detail, revisions, one, session, load).catch((error) => show(detail, errorBox(error)));
      show(list, el("section", { class: "card" }, el("div", { class: "body" }, table(["Revision", "When", "Who", "Outcome", "What"], revisions.map((one) => [
        el("button", { class: "link-like", type: "button", onclick: () => open(one) }, String(one.revision)),
        el("time", { datetime: one.time }, clock(one.time)), one.author, badge(one.outcome), one.summary])))));
      if (revisions.length) await open(revisions[0]);
    } catch (error) {
      show(list, errorBox(error));
    }
  };
  choice.addEventListener("change", load);
  return {
    update() {
      const found = (live.status?.stacks ?? []).map((stack) => stack.name);
      if (found.join() === names) return;
      names = found.join();
      const before = choice.value || chosen;
      show(choice, found.map((name) => el("option", {}, name)));
      if (found.includes(before)) choice.value = before;
      if (found.length) load();
    },
  };
}

async function look(detail, revisions, one, session, reload) {
  const base = `/stacks/${encodeURIComponent(one.stack)}/revisions/`;
  const now = await get(base + one.revision), older = revisions.find((other) => other.revision < one.revision);
  const before = older ? await get(base + older.revision) : null;
  const files = Object.entries(now.packages).flatMap(([name, { files }]) => {
    const known = before?.packages[name]?.files ?? {};
    return [...new Set([...Object.keys(files), ...Object.keys(known)])].filter((path) => files[path] !== known[path]).map((path) => `${name}: ${path}`);
  });
  const way = el("button", { type: "button", class: "danger", hidden: session.role !== "write" || one === revisions[0],
    onclick: () => back(one, reload) }, "Roll back to this");
  show(detail, el("section", { class: "card" }, el("header", {}, el("h2", {}, `Revision ${one.revision}`), badge(one.outcome), el("div", { class: "end" }, way)),
    el("div", { class: "body" },
      el("dl", { class: "facts" }, Object.entries({ Commit: now.commit, Source: now.source, ...now.receipt }).filter(([, value]) => value !== null && value !== "")
        .flatMap(([label, value]) => [el("dt", {}, label), el("dd", {}, String(value))])),
      now.failure ? el("p", { class: "bad" }, now.failure.message) : null,
      el("ul", { class: "steps" }, now.actions.map((action) => el("li", {}, el("b", {}, action.action), el("span", {}, action.deployment ?? "http"), el("span", { class: "muted" }, action.reason)))),
      showDifference(difference(before ? asLines(before.spec) : [], asLines(now.spec)), `Difference of the spec to revision ${older?.revision ?? "none"}`),
      files.length ? el("p", { class: "muted small" }, `Changed files: ${files.slice(0, 200).join(", ")}`) : null)));
}

function back(one, reload) {
  const told = el("ol", { class: "steps", "aria-live": "polite" });
  const go = el("button", { type: "button", class: "danger" }, "Roll back");
  const stop = el("button", { type: "button" }, "Close");
  const dialog = openDialog(`Roll back ${one.stack} to revision ${one.revision}?`,
    el("p", {}, `It becomes what it was then: ${one.summary}. The stack is pinned to it until somebody applies or resumes.`), told,
    el("div", { class: "actions" }, stop, go));
  stop.addEventListener("click", () => dialog.close());
  go.addEventListener("click", async () => {
    go.disabled = true;
    try {
      const { operation } = await post(`/stacks/${encodeURIComponent(one.stack)}/rollback`, { revision: one.revision, source: "dashboard" });
      for await (const news of lines(`/operations/${operation}/events`)) {
        for (const event of news) if (event.message || event.outcome) told.append(el("li", {}, event.message ?? event.outcome));
      }
      await reload();
    } catch (error) {
      told.append(el("li", { class: "bad" }, error.message));
    }
  });
}

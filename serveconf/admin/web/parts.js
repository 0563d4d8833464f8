// What several pages show: states, replicas, errors, the dialog.
import { el, keep, say, show } from "./dom.js";

const KINDS = {
  Healthy: "good", Ready: "good", Pending: "busy", Progressing: "busy", Starting: "busy", Draining: "busy", Deleting: "busy",
  Pinned: "pinned", Degraded: "warn", Unhealthy: "warn", RolledBack: "warn", Failed: "bad", Invalid: "bad",
  applied: "good", unchanged: "good", running: "busy", applying: "busy", rolled_back: "warn", failed: "bad", timeout: "bad", conflict: "warn",
};

export function badge(state) {
  return el("span", { class: `badge ${KINDS[state] ?? ""}` }, state.replaceAll("_", " "));
}

export function liveBadge() {
  const element = badge("");
  return {
    element,
    update(state) {
      say(element, state);
      element.className = `badge ${KINDS[state] ?? ""}`;
    },
  };
}

// Replicas as dots: the shape says the state too. In words for whoever can't see them.
export function dots() {
  const row = el("span", { class: "dots", "aria-hidden": "true" }), words = el("span", { class: "small muted" });
  const element = el("div", { class: "cell" }, row, words);
  return {
    element,
    update(deployment) {
      const replicas = deployment.replicas;
      const ready = replicas.filter((replica) => replica.state === "Ready").length;
      say(words, `${ready}/${replicas.filter((replica) => replica.state !== "Draining").length} ready`);
      keep(row, replicas.slice(0, 60), (replica) => replica.id, () => {
        const element = el("span", { class: "dot" });
        return {
          element,
          update(replica) {
            element.className = `dot ${replica.state} ${replica.version === deployment.version ? "" : "other"}`;
            element.title = `${replica.id}: ${replica.state}, version ${replica.version}`;
          },
        };
      });
    },
  };
}

// Where its new version is, while it is tried on a share of the requests.
export function canaryText({ canary }) {
  return canary ? `Canary, ${canary.message}` : "";
}

export function deploymentLink(stack, deployment) {
  return `#/deployments/${encodeURIComponent(stack)}/${encodeURIComponent(deployment)}`;
}

// An id without what the page says already.
export function shortId(id, stack, deployment) {
  const known = `${stack}.${deployment}.`;
  return el("code", { title: id }, id.startsWith(known) ? id.slice(known.length) : id);
}

export function errorBox(error) {
  return el("div", { class: "card", role: "alert" }, el("div", { class: "body" },
    el("p", { class: "bad" }, error.message), error.hint ? el("p", { class: "muted" }, error.hint) : null));
}

export function table(titles, rows, { numeric = [] } = {}) {
  const kind = (index) => (numeric.includes(index) ? "num" : null);
  // roles in words: on a narrow screen a row becomes a block, which would be no table any more
  const cell = (text, index) => el("td", { class: kind(index), role: "cell", "data-title": titles[index] }, text);
  return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": titles.filter(Boolean).join(", ") }, el("table", { role: "table" },
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, titles.map((title, index) => el("th", { scope: "col", role: "columnheader", class: kind(index) }, title)))),
    el("tbody", { role: "rowgroup" }, rows.map((cells) => el("tr", { role: "row" }, cells.map(cell))))));
}

export function openDialog(title, ...children) {
  const dialog = document.getElementById("dialog");
  show(dialog, el("h2", { id: "dialog-title" }, title), children);
  dialog.showModal();
  return dialog;
}

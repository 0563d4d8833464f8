// What several pages show: states, replicas, errors, the dialog.
import { el, keep, say, show } from "./dom.js";

const KINDS = {
  Healthy: "good", Ready: "good", Pending: "busy", Progressing: "busy", Starting: "busy", Draining: "busy", Deleting: "busy",
  Pinned: "pinned", Degraded: "warn", Unhealthy: "warn", RolledBack: "warn", Failed: "bad", Invalid: "bad",
  applied: "good", unchanged: "good", running: "busy", rolled_back: "warn", failed: "bad", timeout: "bad", conflict: "warn",
};

export function badge(state) {
  return el("span", { class: `badge ${KINDS[state] ?? ""}` }, state);
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
      const ready = replicas.filter((replica) => replica.state === "Ready" && replica.version === deployment.version).length;
      say(words, `${ready}/${replicas.filter((replica) => replica.state !== "Draining").length} ready`);
      keep(row, replicas.slice(0, 60), (replica) => replica.id, () => {
        const element = el("span", { class: "dot" });
        return {
          element,
          update(replica) {
            element.className = `dot ${replica.state} ${replica.version === deployment.version ? "" : "old"}`;
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

export function errorBox(error) {
  return el("div", { class: "card", role: "alert" }, el("div", { class: "body" },
    el("p", { class: "bad" }, error.message), error.hint ? el("p", { class: "muted" }, error.hint) : null));
}

export function table(titles, rows, { numeric = [] } = {}) {
  const kind = (index) => (numeric.includes(index) ? "num" : null);
  return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": titles.filter(Boolean).join(", ") }, el("table", {},
    el("thead", {}, el("tr", {}, titles.map((title, index) => el("th", { scope: "col", class: kind(index) }, title)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) => el("td", { class: kind(index) }, cell)))))));
}

export function openDialog(title, ...children) {
  const dialog = document.getElementById("dialog");
  show(dialog, el("h2", { id: "dialog-title" }, title), children);
  dialog.showModal();
  return dialog;
}

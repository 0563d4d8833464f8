// What is placed where, and what is free.
import { get } from "./api.js";
import { meter } from "./charts.js";
import { el, show } from "./dom.js";
import { plural, size } from "./format.js";
import { badge, deploymentLink, errorBox, shortId, table } from "./parts.js";

export const title = "Nodes";
const EVERY_MS = 3000;
const NAMES = { CPU: "CPUs", GPU: "GPUs", memory: "Memory", object_store_memory: "Object store" };

export function mount(root) {
  const list = el("div", { class: "grid" });
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, title),
    el("span", { class: "muted small" }, "Bars show what is reserved, as Ray counts it, not what is used.")), list);
  const end = new AbortController();
  let timer = 0, drawn = "";
  const look = async () => {
    try {
      const nodes = await get("/nodes", { signal: end.signal });
      const text = JSON.stringify(nodes);
      if (text !== drawn) show(list, nodes.map(card));
      drawn = text;
    } catch (error) {
      if (end.signal.aborted || error.status === 401) return;
      if (error.status) show(list, errorBox(error));
    }
    timer = setTimeout(look, EVERY_MS);
  };
  look();
  return { unmount() { end.abort(); clearTimeout(timer); } };
}

function card(node) {
  const resources = Object.keys(node.total).filter((name) => !name.startsWith("node:") && !name.startsWith("accelerator_type:")).sort();
  const id = node.id.slice(0, 12);
  const replicas = node.replicas.toSorted((one, other) => (one.id < other.id ? -1 : 1));
  return el("section", { class: "card", "aria-label": `Node ${node.name || id}` },
    el("header", {}, el("h2", {}, node.name || id), node.name ? el("code", { class: "muted" }, id) : null,
      node.is_head ? el("span", { class: "badge" }, "head") : null, node.drains ? el("span", { class: "badge warn" }, "drains") : null,
      el("span", { class: "end muted small" }, `${plural(node.replicas.length, "replica")}, ${plural(node.proxies.length, "proxy").replace("proxys", "proxies")}`)),
    el("div", { class: "body" },
      el("dl", { class: "bars" }, resources.map((name) => {
        const total = node.total[name], used = total - (node.available[name] ?? 0);
        const write = name.includes("memory") ? size : (value) => String(Math.round(value * 1000) / 1000);
        return meter(NAMES[name] ?? name, used, total, `${write(used)} of ${write(total)}`);
      }).flat()),
      table(["What", "Id", "State"], [
        ...node.proxies.map((proxy) => ["proxy", el("code", {}, proxy.id), badge(proxy.state)]),
        ...replicas.map(({ stack, deployment, id, state }) => [
          el("a", { href: deploymentLink(stack, deployment) }, `${stack}/${deployment}`), shortId(id, stack, deployment), badge(state)])])));
}

// What is placed where, and what is free.
import { get } from "./api.js";
import { meter } from "./charts.js";
import { el, show } from "./dom.js";
import { plural, size } from "./format.js";
import { badge, deploymentLink, errorBox } from "./parts.js";

export const title = "Nodes";
const EVERY_MS = 3000;
const NAMES = { CPU: "CPUs", GPU: "GPUs", memory: "Memory", object_store_memory: "Object store" };

export function mount(root) {
  const list = el("div", { class: "grid" });
  show(root, el("div", { class: "head" }, el("h1", { tabindex: "-1" }, title)), list);
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
  return el("section", { class: "card", "aria-label": `Node ${node.id.slice(0, 12)}` },
    el("header", {}, el("h2", { class: "mono" }, node.id.slice(0, 12)), node.is_head ? el("span", { class: "badge" }, "head") : null,
      el("span", { class: "end muted small" }, `${plural(node.replicas.length, "replica")}, ${plural(node.proxies.length, "proxy").replace("proxys", "proxies")}`)),
    el("div", { class: "body" },
      el("dl", { class: "bars" }, resources.map((name) => {
        const total = node.total[name], used = total - (node.available[name] ?? 0);
        const write = name.includes("memory") ? size : (value) => String(Math.round(value * 1000) / 1000);
        return meter(NAMES[name] ?? name, used, total, `${write(used)} of ${write(total)}`);
      }).flat()),
      el("ul", { class: "steps" },
        node.proxies.map((proxy) => el("li", {}, el("span", {}, "proxy"), el("code", {}, proxy.id), badge(proxy.state))),
        node.replicas.map((replica) => el("li", {}, el("a", { href: deploymentLink(replica.stack, replica.deployment) }, `${replica.stack}/${replica.deployment}`),
          el("code", { class: "muted" }, replica.id), badge(replica.state))))));
}

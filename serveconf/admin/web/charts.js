// Curves and bars as SVG, updated in place.
import { el, say, show, svg } from "./dom.js";
import { POINTS } from "./live.js";

const HIGH = 40;

function place(values, top) {
  const begin = POINTS - values.length;
  return values.map((value, index) => (value === null ? null : [begin + index, HIGH - (value / top) * HIGH]));
}

function path(places) {
  let text = "", open = false;
  for (const spot of places) {
    text += spot === null ? "" : `${open ? "L" : "M"}${spot[0]} ${spot[1].toFixed(2)}`;
    open = spot !== null;
  }
  return text;
}

function area(places) {
  const known = places.map((spot, index) => spot ?? [POINTS - places.length + index, HIGH]);
  return known.length ? `M${known[0][0]} ${HIGH}${known.map(([x, y]) => `L${x} ${y.toFixed(2)}`).join("")}L${known.at(-1)[0]} ${HIGH}Z` : "";
}

function frame(kind, ...parts) {
  return svg("svg", { class: kind, viewBox: `0 0 ${POINTS} ${HIGH}`, preserveAspectRatio: "none" }, parts);
}

// A small curve without axes. What it shows is said beside it in figures, so it is hidden from screen readers.
export function sparkline(kind = "") {
  const line = svg("path", { class: `curve ${kind}` }), below = svg("path", { class: `area ${kind}` });
  const element = frame("spark", svg("line", { class: "rule", x1: 0, x2: POINTS, y1: HIGH, y2: HIGH }), below, line);
  element.setAttribute("aria-hidden", "true");
  return {
    element,
    update(values) {
      const places = place(values, Math.max(1e-9, ...values.map((value) => value ?? 0)) * 1.08);
      line.setAttribute("d", path(places));
      below.setAttribute("d", area(places));
    },
  };
}

// A curve, or some, with its highest value, its time axis, and the values under the pointer.
// `series`: [{ name, kind, of(point) }].
export function chart(title, series, format) {
  const lines = series.map(({ kind = "" }) => svg("path", { class: `curve ${kind}` }));
  const below = svg("path", { class: `area ${series[0].kind ?? ""}` });
  const cross = svg("line", { class: "cross", y1: 0, y2: HIGH, visibility: "hidden" });
  const rules = [0, HIGH / 2, HIGH].map((y) => svg("line", { class: "rule", x1: 0, x2: POINTS, y1: y, y2: y }));
  const picture = frame("chart", rules, below, lines, cross);
  picture.setAttribute("role", "img");
  const top = el("span", { class: "max num" }), when = el("span");
  const values = series.map(() => el("span", { class: "num" }));
  const legend = el("div", { class: "legend" }, series.map(({ name, kind = "" }, index) =>
    el("span", {}, el("i", { class: kind }), `${name} `, values[index])));
  const element = el("section", { class: "card" },
    el("header", {}, el("h2", {}, title), el("div", { class: "end" }, legend)),
    el("div", { class: "body" }, el("div", { class: "chart-box" }, picture, top),
      el("div", { class: "chart-foot" }, el("span", {}, "5 min ago"), when, el("span", {}, "now"))));
  let points = [], looked = null;
  const tell = () => {
    const index = looked === null ? points.length - 1 : looked - (POINTS - points.length);
    const point = points[index];
    series.forEach(({ of }, number) => say(values[number], point ? format(of(point)) : "–"));
    say(when, looked === null || !point ? "" : `${points.length - 1 - index} s ago`);
    cross.setAttribute("visibility", looked === null || !point ? "hidden" : "visible");
    if (looked !== null) { cross.setAttribute("x1", looked); cross.setAttribute("x2", looked); }
  };
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    looked = Math.min(POINTS - 1, Math.max(0, Math.round(((event.clientX - box.left) / box.width) * POINTS)));
    tell();
  });
  picture.addEventListener("pointerleave", () => { looked = null; tell(); });
  return {
    element,
    update(now) {
      points = now;
      const columns = series.map(({ of }) => now.map(of));
      const highest = Math.max(0, ...columns.flat().map((value) => value ?? 0));
      columns.forEach((column, index) => lines[index].setAttribute("d", path(place(column, highest * 1.08 || 1))));
      below.setAttribute("d", area(place(columns[0], highest * 1.08 || 1)));
      say(top, highest ? format(highest) : "");
      tell();
      picture.setAttribute("aria-label", `${title}, the last five minutes: ` +
        series.map(({ name, of }) => `${name} ${now.length ? format(of(now.at(-1))) : "–"}`).join(", "));
    },
  };
}

// How many of each: [[label, count]].
export function histogram(rows) {
  const highest = Math.max(1, ...rows.map(([, count]) => count));
  return show(el("dl", { class: "bars" }), rows.map(([label, count]) => {
    const filled = el("span");
    filled.style.width = `${(count / highest) * 100}%`;
    return [el("dt", {}, label), el("dd", { class: "bar", "aria-hidden": "true" }, filled), el("dd", {}, String(count))];
  }).flat());
}

export function meter(label, used, total, text) {
  const filled = el("span"), share = total ? used / total : 0;
  filled.style.width = `${Math.min(100, share * 100)}%`;
  return [el("dt", {}, label), el("dd", { class: `bar ${share > 0.9 ? "full" : ""}`, "aria-hidden": "true" }, filled), el("dd", {}, text)];
}

// Data as YAML-like lines, and the difference between two lists of lines.
import { el } from "./dom.js";

export function asLines(data, indent = "") {
  if (Array.isArray(data)) return data.flatMap((item) => withDash(asLines(item, indent), indent));
  if (data !== null && typeof data === "object") return Object.entries(data).flatMap(([key, value]) => entry(key, value, indent));
  return [indent + scalar(data)];
}

function entry(key, value, indent) {
  if (value !== null && typeof value === "object") {
    const empty = Array.isArray(value) ? "[]" : "{}";
    return Object.keys(value).length ? [`${indent}${key}:`, ...asLines(value, `${indent}  `)] : [`${indent}${key}: ${empty}`];
  }
  return [`${indent}${key}: ${scalar(value)}`];
}

function withDash(lines, indent) {
  return lines.map((line, index) => `${indent}${index ? "  " : "- "}${line.slice(indent.length)}`);
}

function scalar(value) {
  return typeof value === "string" && !/^[\w./:@${}-][\w ./:@${}+-]*$/.test(value) ? JSON.stringify(value) : String(value);
}

// [[sign, line]], sign "+", "-" or " ": by the longest common subsequence, within what differs at all.
export function difference(before, after) {
  let begin = 0, end = 0;
  while (begin < before.length && begin < after.length && before[begin] === after[begin]) begin += 1;
  while (end < before.length - begin && end < after.length - begin && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  const old = before.slice(begin, before.length - end), fresh = after.slice(begin, after.length - end);
  const longest = Array.from({ length: old.length + 1 }, () => new Uint32Array(fresh.length + 1));
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = fresh.length - 1; j >= 0; j -= 1) {
      longest[i][j] = old[i] === fresh[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  const middle = [];
  for (let i = 0, j = 0; i < old.length || j < fresh.length;) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) { middle.push([" ", old[i]]); i += 1; j += 1; }
    else if (i < old.length && (j >= fresh.length || longest[i + 1][j] >= longest[i][j + 1])) { middle.push(["-", old[i]]); i += 1; }
    else { middle.push(["+", fresh[j]]); j += 1; }
  }
  const same = (line) => [" ", line];
  return [...before.slice(0, begin).map(same), ...middle, ...before.slice(before.length - end).map(same)];
}

const AROUND = 3;

export function showDifference(found, label) {
  const near = found.map((_, index) => found.slice(Math.max(0, index - AROUND), index + AROUND + 1).some(([sign]) => sign !== " "));
  const rows = [];
  let hidden = 0;
  const skipped = () => { if (hidden) rows.push(el("span", { class: "gap" }, `  … ${hidden} lines the same`)); hidden = 0; };
  found.forEach(([sign, line], index) => {
    if (!near[index]) { hidden += 1; return; }
    skipped();
    rows.push(el("span", { class: { "+": "add", "-": "del" }[sign] ?? null }, `${sign} ${line}`));
  });
  skipped();
  return el("div", { class: "diff", tabindex: "0", role: "group", "aria-label": label }, rows);
}

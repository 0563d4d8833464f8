// Elements from data. Text is only ever set as text: what users and their code have named or said stays inert.

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function show(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Have the children of `parent` be one for each item, in order. A child stays the same element for as long as its key is
// there, so that focus and selection survive what is updated every second.
export function keep(parent, items, keyOf, make) {
  const before = parent.kept ?? new Map();
  const now = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    const child = before.get(key) ?? make(item);
    now.set(key, child);
    if (child.element === place) place = place.nextSibling;
    else parent.insertBefore(child.element, place);
    child.update?.(item);
  }
  for (const [key, child] of before) if (now.get(key) !== child) child.element.remove();
  parent.kept = now;
}

// SPDX-License-Identifier: Apache-2.0
// Helpers that create elements. Text is always set as text: no code of this page parses HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** Create an HTML element with attributes, text (`text`), event listeners (`on...`) and children (elements or text). */
export function el(name, attributes = {}, ...children) {
  return withContent(document.createElement(name), attributes, children);
}

/** Create an SVG element, with the same arguments as `el`. */
export function svg(name, attributes = {}, ...children) {
  return withContent(document.createElementNS(SVG, name), attributes, children);
}

export function show(element, visible) {
  element.hidden = !visible;
}

function withContent(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

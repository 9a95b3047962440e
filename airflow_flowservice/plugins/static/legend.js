// The states with how much there is of each; pressed, they choose which windows the table shows.

import { el, svg } from "./dom.js";
import { STATES } from "./states.js";
import { countText, counted, lengthText } from "./times.js";

export function swatch(state) {
  return svg(
    "svg",
    { class: "swatch", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
    svg("rect", { class: `shape ${state}`, x: 0.5, y: 0.5, width: 15, height: 15, rx: 3, fill: `url(#${state})` }),
  );
}

/** @param chosen the states that are shown; an empty set means all. */
export function drawLegend(place, { totals, chosen, onToggle }) {
  const buttons = Object.entries(STATES).map(([state, { word, text }]) => {
    const { windows = 0, seconds = 0 } = totals[state] ?? {};
    return el(
      "button",
      {
        type: "button",
        "data-state": state,
        class: windows ? null : "none",
        "aria-pressed": String(chosen.has(state)),
        "aria-label": `${word}: ${counted(windows, "window")}, ${lengthText(seconds)}; ${text}`,
        title: `${word}: ${text}`,
        onclick: () => onToggle(state),
      },
      swatch(state),
      el("span", { class: "word", text: word }),
      el("span", { class: "count", text: countText(windows) }),
      el("span", { class: "hours", text: windows ? lengthText(seconds) : "none" }),
    );
  });
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.state : null;
  place.replaceChildren(...buttons);
  if (focused) place.querySelector(`[data-state="${focused}"]`).focus();
}

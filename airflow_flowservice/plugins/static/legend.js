// SPDX-License-Identifier: Apache-2.0
// The legend: each state with its number of windows and hours. Its buttons filter the windows of the table.

import { el, svg } from "./dom.js";
import { countText, counted, durationText } from "./formats.js";
import { STATES } from "./states.js";

export function swatch(state) {
  return svg(
    "svg",
    { class: "swatch", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
    svg("rect", { class: `shape ${state}`, x: 0.5, y: 0.5, width: 15, height: 15, rx: 3, fill: `url(#${state})` }),
  );
}

/** @param stateFilter the states that the table shows; an empty set means all states. */
export function drawLegend(place, { totals, stateFilter, onToggle }) {
  const buttons = Object.entries(STATES).map(([state, { label, description }]) => {
    const { windows = 0, seconds = 0 } = totals[state] ?? {};
    return el(
      "button",
      {
        type: "button",
        "data-state": state,
        class: windows ? null : "none",
        "aria-pressed": String(stateFilter.has(state)),
        "aria-label": `${label}: ${counted(windows, "window")}, ${durationText(seconds)}; ${description}`,
        title: `${label}: ${description}`,
        onclick: () => onToggle(state),
      },
      swatch(state),
      el("span", { class: "word", text: label }),
      el("span", { class: "count", text: countText(windows) }),
      el("span", { class: "hours", text: windows ? durationText(seconds) : "none" }),
    );
  });
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.state : null;
  place.replaceChildren(...buttons);
  if (focused) place.querySelector(`[data-state="${focused}"]`).focus();
}

// SPDX-License-Identifier: Apache-2.0
// The tooltip beside the pointer, or below a focused element.

import { byId, show } from "./dom.js";

const MARGIN_PX = 8;

/** Show elements at a position of the viewport, in pixels. */
export function showTooltipAt({ x, y }, ...elements) {
  const tooltip = byId("tooltip");
  show(tooltip, true);
  tooltip.replaceChildren(...elements);
  const left = Math.min(x + 14, innerWidth - tooltip.offsetWidth - MARGIN_PX);
  const isBelow = y + 18 + tooltip.offsetHeight < innerHeight;
  tooltip.style.left = `${Math.max(MARGIN_PX, left)}px`;
  tooltip.style.top = `${isBelow ? y + 18 : Math.max(MARGIN_PX, y - 18 - tooltip.offsetHeight)}px`;
}

export function hideTooltip() {
  show(byId("tooltip"), false);
}

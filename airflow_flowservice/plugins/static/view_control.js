// SPDX-License-Identifier: Apache-2.0
// Zooming and moving the timeline's view, by dragging, keys or buttons. A view is {from, until} in epoch milliseconds.

const MIN_LENGTH_MS = 60_000;
const MIN_DRAG_PX = 5;

/** Return the view moved by a fraction of its length, or zoomed around its middle, limited to the range. */
export function changedView(view, range, { by = 0, zoom = 1 }) {
  const length = Math.min(Math.max((view.until - view.from) * zoom, MIN_LENGTH_MS), range.until - range.from);
  const middle = (view.from + view.until) / 2 + by * (view.until - view.from);
  const from = Math.min(Math.max(middle - length / 2, range.from), range.until - length);
  return { from, until: from + length };
}

export const KEYS = {
  ArrowLeft: { by: -0.25 },
  ArrowRight: { by: 0.25 },
  "+": { zoom: 0.5 },
  "=": { zoom: 0.5 },
  "-": { zoom: 2 },
  0: { zoom: Infinity },
};

/**
 * Call handlers for pointer actions on an element. All times are epoch milliseconds: `onDrag(from, until)`,
 * `onClick(time)` and `onHover(time, event)`. If the pointer leaves the element, `onHover` is called with null.
 */
export function watchPointer(element, { timeAt, onDrag, onClick, onHover }) {
  let dragStart = null;
  const offset = (event) => event.clientX - element.getBoundingClientRect().left;
  const brush = () => element.querySelector(".brush");

  element.addEventListener("pointerdown", (event) => {
    if (event.button === 0) dragStart = offset(event);
  });
  element.addEventListener("pointermove", (event) => {
    onHover(timeAt(offset(event)), event);
    if (dragStart === null) return;
    brush()?.setAttribute("x", Math.min(dragStart, offset(event)));
    brush()?.setAttribute("width", Math.abs(offset(event) - dragStart));
  });
  element.addEventListener("pointerleave", () => onHover(null));
  addEventListener("pointerup", (event) => {
    if (dragStart === null) return;
    const [left, right] = [dragStart, offset(event)].sort((a, b) => a - b);
    dragStart = null;
    brush()?.setAttribute("width", 0);
    if (right - left < MIN_DRAG_PX) onClick(timeAt(left));
    else onDrag(timeAt(left), timeAt(right));
  });
}

// Choosing a part of the time line: by dragging, by keys, by buttons.

const SHORTEST = 60_000;

/** The view, moved by a part of itself or zoomed around its middle, within the range. */
export function moved(view, range, { by = 0, zoom = 1 }) {
  const length = Math.min(Math.max((view.until - view.from) * zoom, SHORTEST), range.until - range.from);
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

/** Watch a place: `onDrag(from, until)` and `onClick(moment, event)` get moments, `onHover(moment or null, event)` too. */
export function watch(place, { momentAt, onDrag, onClick, onHover }) {
  let begun = null;
  const within = (event) => event.clientX - place.getBoundingClientRect().left;
  const brush = () => place.querySelector(".brush");

  place.addEventListener("pointerdown", (event) => {
    if (event.button === 0) begun = within(event);
  });
  place.addEventListener("pointermove", (event) => {
    onHover(momentAt(within(event)), event);
    if (begun === null) return;
    brush()?.setAttribute("x", Math.min(begun, within(event)));
    brush()?.setAttribute("width", Math.abs(within(event) - begun));
  });
  place.addEventListener("pointerleave", () => onHover(null));
  addEventListener("pointerup", (event) => {
    if (begun === null) return;
    const [left, right] = [begun, within(event)].sort((one, other) => one - other);
    begun = null;
    brush()?.setAttribute("width", 0);
    if (right - left < 5) onClick(momentAt(left), event);
    else onDrag(momentAt(left), momentAt(right));
  });
}

// SPDX-License-Identifier: Apache-2.0
// The timeline: one bar with the windows, signs below it, and an axis. Windows narrower than a pixel are merged.

import { svg } from "./dom.js";
import { DRAW_ORDER, STATES } from "./states.js";

const TOP = 4;
const BAR_HEIGHT = 46;
const SIGNS_Y = TOP + BAR_HEIGHT + 15;
const AXIS_Y = SIGNS_Y + 24;
const HEIGHT = AXIS_Y + 6;
const MIN_SEPARATE_PX = 6; // windows at least this wide are drawn separately
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const TICK_STEPS = [HOUR / 12, HOUR / 4, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY];
const TICK_MONTHS = [1, 3, 6, 12, 24, 60];
const MIN_VISIBLE_PX = 3; // short windows are widened to this width, or to less if there are many
const LABEL_PX = 76; // width of a label
const MONTH_NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Draw the windows of a view, `{from, until}` in epoch milliseconds. */
export function drawTimeline(place, { windows, view, selected, stateFilter }) {
  const width = Math.max(200, place.clientWidth);
  const x = (time) => ((time - view.from) / (view.until - view.from)) * width;
  const visible = windows.filter((each) => each.until > view.from && each.from < view.until);
  const barShape = { x: 0, y: TOP, width, height: BAR_HEIGHT };
  const track = svg("rect", { class: "track", ...barShape, rx: 4 });
  const bar = svg("g", { class: "bar", "clip-path": "url(#bar)" }, track);
  const isShort = ({ from, until }) => x(until) - x(from) < MIN_VISIBLE_PX;
  const short = mergedWindows(visible).filter((each) => each.state !== "ingested" && isShort(each));
  const minWidth = Math.min(MIN_VISIBLE_PX, Math.max(1, width / (12 * short.length)));
  for (const state of DRAW_ORDER) {
    const faint = stateFilter.size && !stateFilter.has(state) ? " faint" : "";
    for (const { left, right } of piecesOf(visible, state, { x, width, minWidth })) {
      const plain = right - left < MIN_VISIBLE_PX ? " plain" : ""; // a pattern would not be visible
      const rect = { x: left, y: TOP, width: right - left, height: BAR_HEIGHT, fill: `url(#${state})` };
      bar.append(svg("rect", { class: `shape ${state}${faint}${plain}`, "data-state": state, ...rect }));
    }
  }
  const picture = svg(
    "svg",
    { class: "picture", width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
    svg("clipPath", { id: "bar" }, svg("rect", { ...barShape, rx: 5 })),
    bar,
    ...signsOf(visible, x, width),
    ...axisOf(view, x, width),
    selected ? selectionMark(selected, x) : null,
    svg("rect", { class: "brush", y: TOP, height: BAR_HEIGHT, width: 0, x: 0 }),
  );
  place.replaceChildren(picture);
}

/** Return the window that contains a time (epoch milliseconds), or null. */
export function windowAt(windows, time) {
  let [low, high] = [0, windows.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (windows[middle].until <= time) low = middle + 1;
    else if (windows[middle].from > time) high = middle - 1;
    else return windows[middle];
  }
  return null;
}

/** Return the pieces of the bar for one state: at most one per pixel, and each wide enough to be visible. */
function piecesOf(windows, state, { x, width, minWidth }) {
  const found = [];
  for (const window of windows) {
    if (window.state !== state) continue;
    let [left, right] = [Math.max(0, x(window.from)), Math.min(width, x(window.until))];
    const isSeparate = right - left >= MIN_SEPARATE_PX;
    if (isSeparate) right -= 1;
    else if (state !== "ingested") [left, right] = widened(left, right, { width, minWidth });
    const last = found.at(-1);
    if (last && !isSeparate && left - last.right < 0.5) last.right = Math.max(last.right, right);
    else found.push({ left, right });
  }
  return found;
}

function widened(left, right, { width, minWidth }) {
  const missing = Math.max(0, minWidth - (right - left));
  const start = Math.min(Math.max(0, left - missing / 2), width - minWidth);
  return [start, Math.max(start + minWidth, right)];
}

/** Merge contiguous windows of the same state. */
function mergedWindows(windows) {
  const groups = [];
  for (const { state, from, until } of windows) {
    const last = groups.at(-1);
    if (last && last.state === state && last.until === from) last.until = until;
    else groups.push({ state, from, until });
  }
  return groups;
}

/** Return a sign for each group of windows that are not ingested. If signs overlap, only the more urgent is drawn. */
function signsOf(windows, x, width) {
  const positions = [];
  const drawn = [];
  const urgency = (group) => DRAW_ORDER.indexOf(group.state);
  const groups = mergedWindows(windows).filter(({ state }) => state !== "ingested");
  for (const group of groups.sort((a, b) => urgency(b) - urgency(a))) {
    const middle = (Math.max(0, x(group.from)) + Math.min(width, x(group.until))) / 2;
    const at = Math.min(Math.max(7, middle), width - 7);
    if (positions.some((other) => Math.abs(other - at) < 13)) continue;
    positions.push(at);
    drawn.push(svg("text", { class: `sign ${group.state}`, x: at, y: SIGNS_Y, text: STATES[group.state].sign }));
    if (drawn.length > 200) break;
  }
  return drawn;
}

function selectionMark(window, x) {
  const left = x(window.from);
  const width = Math.max(3, x(window.until) - left + 2);
  return svg("rect", { class: "selected", x: left - 1.5, y: TOP - 2, width, height: BAR_HEIGHT + 4, rx: 3 });
}

function axisOf(view, x, width) {
  return ticks(view, width).flatMap(({ time, text }) => {
    const at = x(time);
    const anchor = at < 20 ? "start" : at > width - 30 ? "end" : "middle";
    return [
      svg("line", { class: "tick", x1: at, x2: at, y1: TOP + BAR_HEIGHT, y2: TOP + BAR_HEIGHT + 5 }),
      svg("text", { class: "label", x: at, y: AXIS_Y, "text-anchor": anchor, text }),
    ];
  });
}

function ticks(view, width) {
  const minStep = ((view.until - view.from) / width) * LABEL_PX;
  const step = TICK_STEPS.find((each) => each >= minStep);
  if (step) return evenTicks(view, step);
  return monthTicks(view, TICK_MONTHS.find((each) => each * 30 * DAY >= minStep) ?? TICK_MONTHS.at(-1));
}

function evenTicks({ from, until }, step) {
  const found = [];
  for (let time = Math.ceil(from / step) * step; time <= until; time += step) {
    const date = new Date(time);
    const clock = time % DAY ? date.toISOString().slice(11, 16) : null;
    found.push({ time, text: clock ?? `${date.getUTCDate()} ${MONTH_NAMES[date.getUTCMonth()]}` });
  }
  return found;
}

function monthTicks({ from, until }, months) {
  const found = [];
  const first = new Date(from);
  for (let month = Math.ceil(first.getUTCMonth() / months) * months; ; month += months) {
    const time = Date.UTC(first.getUTCFullYear(), month, 1);
    if (time > until) return found;
    const date = new Date(time);
    const text = date.getUTCMonth() === 0 ? String(date.getUTCFullYear()) : MONTH_NAMES[date.getUTCMonth()];
    if (time >= from) found.push({ time, text });
  }
}

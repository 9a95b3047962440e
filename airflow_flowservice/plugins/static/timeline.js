// The time line: one bar, in which windows that are narrower than a pixel are drawn together, and signs below it.

import { svg } from "./dom.js";
import { PAINTED, STATES } from "./states.js";

const TOP = 4;
const BAR = 46;
const SIGNS = TOP + BAR + 15;
const AXIS = SIGNS + 24;
const HEIGHT = AXIS + 6;
const APART = 6; // pixels from which windows are drawn one by one
const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const STEPS = [HOUR / 12, HOUR / 4, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY];
const MONTHS = [1, 3, 6, 12, 24, 60];
const WIDEST = 3; // pixels that make a short window visible, less where there are many
const LABEL = 76; // pixels that a label needs
const NAMES = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Draw the windows of a view, `{from, until}` in milliseconds. */
export function drawTimeline(place, { windows, view, selected, chosen }) {
  const width = Math.max(200, place.clientWidth);
  const x = (moment) => ((moment - view.from) / (view.until - view.from)) * width;
  const visible = windows.filter((each) => each.until > view.from && each.from < view.until);
  const bar = svg("g", { class: "bar", "clip-path": "url(#bar)" }, svg("rect", { class: "track", x: 0, y: TOP, width, height: BAR, rx: 4 }));
  const short = groupsOf(visible).filter(({ state, from, until }) => state !== "ingested" && x(until) - x(from) < WIDEST);
  const least = Math.min(WIDEST, Math.max(1, width / (12 * short.length)));
  for (const state of PAINTED) {
    const faint = chosen.size && !chosen.has(state) ? " faint" : "";
    for (const { left, right } of pieces(visible, state, { x, width, least })) {
      const plain = right - left < WIDEST ? " plain" : ""; // too narrow for a pattern
      const rect = { x: left, y: TOP, width: right - left, height: BAR, fill: `url(#${state})` };
      bar.append(svg("rect", { class: `shape ${state}${faint}${plain}`, "data-state": state, ...rect }));
    }
  }
  const picture = svg(
    "svg",
    { class: "picture", width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
    svg("clipPath", { id: "bar" }, svg("rect", { x: 0, y: TOP, width, height: BAR, rx: 5 })),
    bar,
    ...signs(visible, x, width),
    ...axis(view, x, width),
    selected ? mark(selected, x) : null,
    svg("rect", { class: "brush", y: TOP, height: BAR, width: 0, x: 0 }),
  );
  place.replaceChildren(picture);
}

/** The window at a place, or null. */
export function windowAt(windows, moment) {
  let [low, high] = [0, windows.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (windows[middle].until <= moment) low = middle + 1;
    else if (windows[middle].from > moment) high = middle - 1;
    else return windows[middle];
  }
  return null;
}

/** Pieces of the bar of one state: never more than there are pixels, and each wide enough to be seen. */
function pieces(windows, state, { x, width, least }) {
  const found = [];
  for (const window of windows) {
    if (window.state !== state) continue;
    let [left, right] = [Math.max(0, x(window.from)), Math.min(width, x(window.until))];
    const single = right - left >= APART;
    if (single) right -= 1;
    else if (state !== "ingested") [left, right] = widened(left, right, { width, least });
    const last = found.at(-1);
    if (last && !single && left - last.right < 0.5) last.right = Math.max(last.right, right);
    else found.push({ left, right });
  }
  return found;
}

function widened(left, right, { width, least }) {
  const more = Math.max(0, least - (right - left));
  const start = Math.min(Math.max(0, left - more / 2), width - least);
  return [start, Math.max(start + least, right)];
}

/** Windows of one state that follow each other, as one. */
function groupsOf(windows) {
  const groups = [];
  for (const { state, from, until } of windows) {
    const last = groups.at(-1);
    if (last && last.state === state && last.until === from) last.until = until;
    else groups.push({ state, from, until });
  }
  return groups;
}

/** One sign for each group of windows that are not simply in, as far as there is room. */
function signs(windows, x, width) {
  const taken = [];
  const drawn = [];
  const urgent = (group) => PAINTED.indexOf(group.state);
  for (const group of groupsOf(windows).filter(({ state }) => state !== "ingested").sort((a, b) => urgent(b) - urgent(a))) {
    const middle = (Math.max(0, x(group.from)) + Math.min(width, x(group.until))) / 2;
    const at = Math.min(Math.max(7, middle), width - 7);
    if (taken.some((other) => Math.abs(other - at) < 13)) continue;
    taken.push(at);
    drawn.push(svg("text", { class: `sign ${group.state}`, x: at, y: SIGNS, text: STATES[group.state].sign }));
    if (drawn.length > 200) break;
  }
  return drawn;
}

function mark(window, x) {
  const left = x(window.from);
  return svg("rect", { class: "selected", x: left - 1.5, y: TOP - 2, width: Math.max(3, x(window.until) - left + 2), height: BAR + 4, rx: 3 });
}

function axis(view, x, width) {
  return ticks(view, width).flatMap(({ moment, text }) => {
    const at = x(moment);
    const anchor = at < 20 ? "start" : at > width - 30 ? "end" : "middle";
    return [
      svg("line", { class: "tick", x1: at, x2: at, y1: TOP + BAR, y2: TOP + BAR + 5 }),
      svg("text", { class: "label", x: at, y: AXIS, "text-anchor": anchor, text }),
    ];
  });
}

function ticks(view, width) {
  const room = ((view.until - view.from) / width) * LABEL;
  const step = STEPS.find((each) => each >= room);
  return step ? evenTicks(view, step) : monthTicks(view, MONTHS.find((each) => each * 30 * DAY >= room) ?? MONTHS.at(-1));
}

function evenTicks({ from, until }, step) {
  const found = [];
  for (let moment = Math.ceil(from / step) * step; moment <= until; moment += step) {
    const date = new Date(moment);
    const clock = moment % DAY ? date.toISOString().slice(11, 16) : null;
    found.push({ moment, text: clock ?? `${date.getUTCDate()} ${NAMES[date.getUTCMonth()]}` });
  }
  return found;
}

function monthTicks({ from, until }, months) {
  const found = [];
  const first = new Date(from);
  for (let month = Math.ceil(first.getUTCMonth() / months) * months; ; month += months) {
    const moment = Date.UTC(first.getUTCFullYear(), month, 1);
    if (moment > until) return found;
    const date = new Date(moment);
    const text = date.getUTCMonth() === 0 ? String(date.getUTCFullYear()) : NAMES[date.getUTCMonth()];
    if (moment >= from) found.push({ moment, text });
  }
}

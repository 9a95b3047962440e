// SPDX-License-Identifier: Apache-2.0
// The cells of the calendar: one for each day or hour (UTC) with the state and the records of its windows.
// Times are epoch milliseconds.

import { DRAW_ORDER } from "./states.js";
import { sum } from "./window_data.js";

const HOUR = 3_600_000;
export const DAY = 24 * HOUR;
export const UNITS = { day: DAY, hour: HOUR };
const MAX_DAYS = 371; // 53 weeks
const YEAR = 364 * DAY; // whole weeks, so that the weekdays keep their rows
const MAX_HOURLY_LENGTH = 6 * HOUR;
const LONGER = 1.1; // a window of a day has 25 hours when the clocks change
const MIN_SAMPLES = 4;
const WEEK = { day: 7, hour: 168 };

/** Levels of the records, as a share of the usual number: each applies up to its limit. */
export const LEVELS = {
  low: { limit: 0.25, label: "a quarter of the usual records, or fewer" },
  less: { limit: 0.75, label: "fewer than usual" },
  usual: { limit: 1.5, label: "usual" },
  more: { limit: Infinity, label: "more than usual" },
  none: { label: "number of records not known" },
};

/** Return "hour" if most windows have at most six hours, otherwise "day"; and whether a day has several windows. */
export function unitOf(windows) {
  const length = median(windows.map(({ from, until }) => until - from)) ?? DAY;
  return { unit: length <= MAX_HOURLY_LENGTH ? "hour" : "day", hasShort: length < DAY };
}

/** Return the part of the range that the calendar shows: whole days, at most 53 weeks, some years before the end. */
export function yearOf(range, yearsBack) {
  const [first, end] = [Math.floor(range.from / DAY) * DAY, Math.ceil(range.until / DAY) * DAY];
  const years = Math.max(0, Math.ceil((end - first - MAX_DAYS * DAY) / YEAR));
  const back = Math.min(Math.max(0, yearsBack), years);
  const until = end - back * YEAR;
  return { from: Math.max(first, until - MAX_DAYS * DAY), until, back, years };
}

/**
 * Return the cells of a year, `{from, until, state, states, windows, records, usual, level}`. `states` has the number
 * of windows of each state; `state` is the most urgent one, or null without a window. `usual` is the median of the
 * same day of the week (and hour), or of all cells if there are few.
 */
export function cellsOf(windows, year, { unit, now }) {
  const size = UNITS[unit];
  const cells = [];
  for (let from = year.from; from < year.until; from += size) {
    cells.push({ from, until: from + size, state: null, states: {}, windows: 0, records: null });
  }
  for (const window of windows) {
    const records = sum(window.runs.filter(({ replaced }) => !replaced), "records");
    for (const cell of cellsOfWindow(window, cells, size)) addWindow(cell, window.state, records);
  }
  addLevels(cells, { unit, now });
  return cells;
}

/** Return the cell that has most of the window; for a longer window, all cells that it overlaps. */
function cellsOfWindow({ from, until }, cells, size) {
  if (!cells.length) return [];
  const indexAt = (time) => Math.floor((time - cells[0].from) / size);
  const isLonger = until - from > size * LONGER;
  const [first, last] = isLonger ? [indexAt(from), indexAt(until - 1)] : Array(2).fill(indexAt((from + until) / 2));
  return cells.slice(Math.max(0, first), Math.max(0, last + 1));
}

function addWindow(cell, state, records) {
  cell.windows += 1;
  cell.states[state] = (cell.states[state] ?? 0) + 1;
  if (cell.state === null || DRAW_ORDER.indexOf(state) > DRAW_ORDER.indexOf(cell.state)) cell.state = state;
  if (records !== null) cell.records = (cell.records ?? 0) + records;
}

function addLevels(cells, { unit, now }) {
  const groups = new Map();
  const groupOf = ({ from }) => Math.floor(from / UNITS[unit]) % WEEK[unit];
  const isComplete = ({ records, until }) => records !== null && until <= now;
  for (const cell of cells.filter(isComplete)) {
    if (!groups.has(groupOf(cell))) groups.set(groupOf(cell), []);
    groups.get(groupOf(cell)).push(cell.records);
  }
  const overall = median([...groups.values()].flat());
  const usual = new Map([...groups].map(([key, values]) => [key, values.length < MIN_SAMPLES ? overall : median(values)]));
  for (const cell of cells) {
    cell.usual = usual.get(groupOf(cell)) ?? overall;
    cell.level = isComplete(cell) ? levelOf(cell.records, cell.usual) : "none";
  }
}

function levelOf(records, usual) {
  if (!usual) return records ? "more" : "usual";
  return Object.keys(LEVELS).find((level) => records / usual <= LEVELS[level].limit);
}

function median(values) {
  const sorted = [...values].sort((one, other) => one - other);
  if (!sorted.length) return null;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

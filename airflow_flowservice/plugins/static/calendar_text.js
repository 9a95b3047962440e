// SPDX-License-Identifier: Apache-2.0
// The texts of the calendar: of a cell, and the summary. Times are epoch milliseconds, shown in UTC.

import { LEVELS } from "./calendar_data.js";
import { counted, countText } from "./formats.js";
import { DRAW_ORDER, STATES } from "./states.js";

export const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
export const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const MAX_NAMED = 3;
const PROBLEMS = new Set(["missing", "failed", "twice", "unknown"]);

/** Return the day of the week, 0 for Monday. */
export const weekday = (time) => (new Date(time).getUTCDay() + 6) % 7;

/** Return `Tue 3 Mar 2026`, or `Tue 3 Mar 2026 06:00` for an hour. */
export function cellName({ from }, unit) {
  const date = new Date(from);
  const day = `${WEEKDAYS[weekday(from)]} ${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
  return unit === "hour" ? `${day} ${date.toISOString().slice(11, 16)}` : day;
}

/** Return the lines that describe a cell: its windows by state, and its records. */
export function cellLines(cell) {
  if (!cell.windows) return ["no window"];
  const states = DRAW_ORDER.filter((state) => cell.states[state]).reverse();
  const parts = states.map((state) => `${countText(cell.states[state])} ${STATES[state].label.toLowerCase()}`);
  return [`${counted(cell.windows, "window")}: ${parts.join(", ")}`, recordsText(cell)];
}

function recordsText({ records, usual, level }) {
  if (records === null) return LEVELS.none.label;
  const isJudged = level !== "none";
  const judgement = isJudged && usual !== null ? `, ${LEVELS[level].label} (${countText(Math.round(usual))})` : ", not over yet";
  return `${counted(records, "record")}${judgement}`;
}

/** Return the summary of the states: the number of cells of each, and the first cells that are not ingested. */
export function statesSummary(cells, unit) {
  const used = cells.filter(({ state }) => state !== null);
  if (!used.length) return `No ${unit} has a window.`;
  const ofStates = [...DRAW_ORDER].reverse().map((state) => [state, used.filter((cell) => cell.state === state)]);
  const parts = ofStates.filter(([, found]) => found.length).map(([state, found]) => {
    const named = PROBLEMS.has(state) ? ` (${listed(found, (cell) => cellName(cell, unit))})` : "";
    return `${countText(found.length)} ${STATES[state].label.toLowerCase()}${named}`;
  });
  return `${counted(used.length, unit)} with windows: ${parts.join("; ")}.`;
}

/** Return the summary of the records: the usual number, and the cells that have far fewer. */
export function recordsSummary(cells, unit) {
  const judged = cells.filter(({ level }) => level !== "none");
  if (!judged.length) return `No ${unit} has a known number of records.`;
  const low = judged.filter(({ level }) => level === "low");
  const named = listed(low, (cell) => `${cellName(cell, unit)} (${countText(cell.records)})`);
  const known = `${counted(judged.length, unit)} with a known number of records.`;
  if (!low.length) return `${known} None has a quarter of the usual records or fewer.`;
  return `${known} ${countText(low.length)} with a quarter of the usual records or fewer: ${named}.`;
}

/** Return the texts of the first cells, and the number of further ones. */
function listed(cells, textOf) {
  const more = cells.length > MAX_NAMED ? ` and ${countText(cells.length - MAX_NAMED)} more` : "";
  return `${cells.slice(0, MAX_NAMED).map(textOf).join(", ")}${more}`;
}

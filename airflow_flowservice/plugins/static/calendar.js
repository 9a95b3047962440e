// SPDX-License-Identifier: Apache-2.0
// The calendar: a heat map of one year by day or hour, with the states of the windows or their records.
// Times are epoch milliseconds.

import { cellsOf, DAY, LEVELS, unitOf, UNITS, yearOf } from "./calendar_data.js";
import { cellLines, cellName, MONTHS, recordsSummary, statesSummary, weekday, WEEKDAYS } from "./calendar_text.js";
import { byId, el, show, svg } from "./dom.js";
import { hideTooltip, showTooltipAt } from "./tooltip.js";

/** Parts of the selection that the calendar stores in the URL: what the cells show, their unit, and the year. */
export const CALENDAR_KEYS = ["measure", "cells", "years_back"];

const TOP = 18; // labels of the months
const LABELS_WIDTH = 40; // labels of the rows
const MIN_LABEL_PX = 34;
const MIN_OUTLINE_PX = 8; // smaller cells have no outline
const SIZES = { day: { min: 11, max: 22 }, hour: { min: 2.4, max: 16 } };
const HOUR_HEIGHT = 7;
const OVERLAP_PX = 0.4; // hides the seams between cells without a gap
const STEPS = {
  day: { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -7, ArrowRight: 7, PageUp: -28, PageDown: 28 },
  hour: { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -24, ArrowRight: 24, PageUp: -168, PageDown: 168 },
};

/**
 * Create the calendar.
 * @param selection the user's selection; the parts of `CALENDAR_KEYS` are read from it and written to it.
 * @param onSelect called with a view, `{from, until}`: a day within the range, or the whole range.
 * @param onChange called when a part of the selection has changed.
 */
export function createCalendar(selection, { onSelect, onChange }) {
  let shown = {}; // what is drawn: {windows, range, now, stateFilter, width}
  let layout = null; // {unit, size, height, cells, year, elements, columnOf, rowOf}
  let focused = -1;
  const place = byId("calendar-grid");

  function update(data) {
    const width = byId("calendar-body").clientWidth - LABELS_WIDTH;
    const filter = [...data.stateFilter].join(" ");
    const isSame = shown.windows === data.windows && shown.filter === filter && shown.width === width;
    shown = { ...data, filter, width };
    if (!isSame) draw();
    if (layout) markView(layout, shown);
  }

  function draw() {
    const hadFocus = place.contains(document.activeElement);
    const found = unitOf(shown.windows);
    const unit = selection.cells in UNITS && found.hasShort ? selection.cells : found.unit;
    const year = yearOf(shown.range, Number(selection.years_back) || 0);
    const cells = cellsOf(shown.windows, year, { unit, now: shown.now });
    const isRecords = selection.measure === "records";
    drawButtons({ unit, isRecords, year, hasShort: found.hasShort });
    layout = layoutOf(cells, year, { unit, width: shown.width });
    drawGrid(layout, { isRecords, stateFilter: shown.stateFilter });
    byId("calendar-text").textContent = (isRecords ? recordsSummary : statesSummary)(cells, unit);
    show(byId("calendar-levels"), isRecords);
    const last = cells.findLastIndex(({ windows }) => windows);
    setFocusable(layout.elements[focused] ? focused : Math.max(0, last), hadFocus);
    if (!hadFocus) byId("calendar-scroll").scrollLeft = byId("calendar-scroll").scrollWidth;
  }

  /** Make one cell reachable with the tab key; optionally focus it. */
  function setFocusable(index, isFocus = true) {
    layout.elements[focused]?.removeAttribute("tabindex");
    focused = index;
    const element = layout.elements[index];
    element?.setAttribute("tabindex", "0");
    if (!isFocus) return;
    element?.focus({ preventScroll: true });
    element?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function change(changes) {
    Object.assign(selection, changes);
    if ("cells" in changes || "years_back" in changes) focused = -1;
    onChange();
    draw();
    markView(layout, shown);
  }

  const indexOf = (event) => Number(event.target.dataset?.cell ?? -1);

  function select(index) {
    const day = Math.floor(layout.cells[index].from / DAY) * DAY;
    setFocusable(index);
    const [from, until] = [Math.max(day, shown.range.from), Math.min(day + DAY, shown.range.until)];
    if (from < until) onSelect({ from, until });
  }

  function showCell(index, position) {
    const cell = layout.cells[index];
    if (!cell) return hideTooltip();
    const lines = cellLines(cell).map((text) => el("span", { text }));
    showTooltipAt(position, el("strong", { text: cellName(cell, layout.unit) }), ...lines);
  }

  place.addEventListener("click", (event) => indexOf(event) >= 0 && select(indexOf(event)));
  place.addEventListener("pointermove", (event) => showCell(indexOf(event), { x: event.clientX, y: event.clientY }));
  place.addEventListener("pointerleave", hideTooltip);
  place.addEventListener("focusout", hideTooltip);
  place.addEventListener("focusin", (event) => {
    if (!event.target.matches(":focus-visible")) return;
    const { left, bottom } = event.target.getBoundingClientRect();
    showCell(indexOf(event), { x: left, y: bottom - 12 });
  });
  place.addEventListener("keydown", (event) => {
    if (event.metaKey || event.altKey || indexOf(event) < 0) return;
    if (event.key === "Enter" || event.key === " ") select(indexOf(event));
    else if (event.key === "Escape") onSelect({ ...shown.range });
    else {
      const target = targetOf(event, indexOf(event), layout);
      if (target === null) return;
      setFocusable(target);
    }
    event.preventDefault();
  });
  for (const measure of ["states", "records"]) {
    byId(`calendar-${measure}`).addEventListener("click", () => change({ measure: measure === "states" ? "" : measure }));
  }
  for (const cells of Object.keys(UNITS)) byId(`calendar-${cells}`).addEventListener("click", () => change({ cells }));
  for (const [id, by] of [["calendar-earlier", 1], ["calendar-later", -1]]) {
    byId(id).addEventListener("click", () => change({ years_back: String(layout.year.back + by) }));
  }
  byId("calendar-levels").replaceChildren(...Object.entries(LEVELS).map(levelElement));
  return { update };
}

/** Return the index of the cell that a key moves to, or null for another key. */
function targetOf({ key, ctrlKey }, index, { cells, unit, rowOf }) {
  const last = cells.length - 1;
  if (key in STEPS[unit]) return Math.min(Math.max(0, index + STEPS[unit][key]), last);
  if (ctrlKey) return { Home: 0, End: last }[key] ?? null;
  const inRow = cells.map((_, each) => each).filter((each) => rowOf(each) === rowOf(index));
  return { Home: inRow[0], End: inRow.at(-1) }[key] ?? null;
}

/** Return where each cell is: days in weeks from Monday to Sunday, or hours in days. */
function layoutOf(cells, year, { unit, width }) {
  const offset = unit === "day" ? weekday(year.from) : 0;
  const rows = unit === "day" ? 7 : 24;
  const columnOf = (index) => Math.floor((index + offset) / rows);
  const rowOf = (index) => (index + offset) % rows;
  const columns = columnOf(cells.length - 1) + 1;
  const { min, max } = SIZES[unit];
  const exact = Math.min(Math.max((width - 4) / columns, min), max);
  const size = exact > 6 ? Math.floor(exact) : exact;
  const height = unit === "day" ? size : HOUR_HEIGHT;
  return { unit, size, height, cells, year, rows, columns, columnOf, rowOf, elements: [], marked: [] };
}

function drawGrid(layout, { isRecords, stateFilter }) {
  const { unit, size, height, rows, columns, cells, elements, rowOf } = layout;
  const lines = Array.from({ length: rows }, (_, row) => svg("g", { role: "row", "aria-label": rowName(row, unit) }));
  cells.forEach((cell, index) => {
    elements.push(cellElement(cell, index, { layout, isRecords, stateFilter }));
    lines[rowOf(index)].append(elements[index]);
  });
  const [pictureWidth, pictureHeight] = [columns * size + 2, TOP + rows * height + 2];
  const grid = svg(
    "svg",
    {
      class: "calendar-picture",
      width: pictureWidth,
      height: pictureHeight,
      role: "grid",
      "aria-label": `Calendar by ${unit}, ${isRecords ? "records" : "states"}`,
      "aria-describedby": "calendar-help calendar-text",
    },
    ...monthLabels(layout),
    ...lines,
    svg("g", { class: "calendar-selection", "aria-hidden": "true" }),
  );
  byId("calendar-grid").replaceChildren(grid);
  byId("calendar-rows").replaceChildren(
    svg("svg", { width: LABELS_WIDTH, height: pictureHeight, "aria-hidden": "true" }, ...rowLabels(layout)),
  );
}

function cellElement(cell, index, { layout, isRecords, stateFilter }) {
  const { unit, size, height, columnOf, rowOf } = layout;
  const gap = size <= 6 ? 0 : unit === "day" ? 2 : 1;
  const kind = isRecords ? cell.level : cell.state;
  const isEmpty = !cell.windows;
  const isFaint = stateFilter.size && !Object.keys(cell.states).some((state) => stateFilter.has(state));
  const small = Math.min(size, height) < MIN_OUTLINE_PX ? "small" : "";
  const classes = isEmpty ? ["empty"] : [isRecords ? `level-${kind}` : `state ${kind}`, small, isFaint ? "faint" : ""];
  return svg("rect", {
    class: ["cell", ...classes].filter(Boolean).join(" "),
    x: columnOf(index) * size + 1,
    y: TOP + rowOf(index) * height,
    width: size - gap + (gap ? 0 : OVERLAP_PX),
    height: height - gap + (gap ? 0 : OVERLAP_PX),
    rx: gap ? 2 : 0,
    fill: isEmpty || isRecords ? null : `url(#${kind})`,
    role: "gridcell",
    "aria-label": `${cellName(cell, unit)}: ${cellLines(cell).join("; ")}`,
    "data-cell": index,
    "data-kind": isEmpty ? null : kind,
  });
}

/** Mark the days of the view, unless it is the whole range. */
function markView(layout, { view, range }) {
  const { unit, size, height, cells, year, elements, columnOf, rowOf, rows } = layout;
  const isWhole = view.from <= range.from && view.until >= range.until;
  const indexAt = (time) => Math.floor((time - year.from) / UNITS[unit]);
  const [first, last] = [Math.max(0, indexAt(view.from)), Math.min(cells.length, indexAt(view.until - 1) + 1) - 1];
  for (const element of layout.marked) element.removeAttribute("aria-selected");
  layout.marked = isWhole ? [] : elements.slice(first, last + 1);
  for (const element of layout.marked) element.setAttribute("aria-selected", "true");
  const outlines = [];
  for (let index = first; !isWhole && index <= last; index += rows - rowOf(index)) {
    const end = Math.min(last, index + rows - 1 - rowOf(index));
    outlines.push({ x: columnOf(index) * size, y: TOP + rowOf(index) * height - 1, rows: end - index + 1 });
  }
  const element = ({ x, y, rows: count }) => svg("rect", { x, y, width: size, height: count * height, rx: 2 });
  document.querySelector(".calendar-selection").replaceChildren(...outlines.map(element));
}

function drawButtons({ unit, isRecords, year, hasShort }) {
  const press = (id, isPressed) => byId(id).setAttribute("aria-pressed", String(isPressed));
  press("calendar-states", !isRecords);
  press("calendar-records", isRecords);
  for (const each of Object.keys(UNITS)) press(`calendar-${each}`, each === unit);
  show(byId("calendar-units"), hasShort);
  show(byId("calendar-years"), year.years > 0);
  byId("calendar-earlier").disabled = year.back >= year.years;
  byId("calendar-later").disabled = year.back === 0;
}

const rowName = (row, unit) => (unit === "day" ? WEEKDAYS[row] : `${String(row).padStart(2, "0")}:00`);

function rowLabels({ unit, height, rows }) {
  const isLabelled = (row) => (unit === "day" ? row % 2 === 0 : row % 6 === 0);
  const y = (row) => TOP + (row + 0.5) * height + 3;
  const labelled = Array.from({ length: rows }, (_, row) => row).filter(isLabelled);
  return labelled.map((row) => svg("text", { class: "label", x: 0, y: y(row), text: rowName(row, unit) }));
}

/** Return a label for each month, at the column of its first day, if it does not overlap the one before. */
function monthLabels({ cells, unit, size, columns, columnOf }) {
  const labels = [];
  let free = 0;
  cells.forEach(({ from }, index) => {
    const date = new Date(from);
    const isFirstDay = date.getUTCDate() === 1 && from % DAY === 0;
    const x = columnOf(index) * size + 1;
    if ((index && !isFirstDay) || x < free || x > columns * size - MIN_LABEL_PX / 2) return;
    if (index === 0 && unit === "day" && date.getUTCDate() > 20) return;
    const isNewYear = date.getUTCMonth() === 0 && isFirstDay;
    const text = isNewYear ? String(date.getUTCFullYear()) : MONTHS[date.getUTCMonth()];
    labels.push(svg("text", { class: "label", x, y: 11, "aria-hidden": "true", text }));
    free = x + MIN_LABEL_PX;
  });
  return labels;
}

function levelElement([level, { label }]) {
  const box = { class: `level-${level}`, x: 0.5, y: 0.5, width: 11, height: 11, rx: 2 };
  const picture = svg("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true" }, svg("rect", box));
  return el("li", {}, picture, el("span", { text: label }));
}

// SPDX-License-Identifier: Apache-2.0
// The page: loads the data of the selected dataflow, draws it, and handles the user's input.
// Times are epoch milliseconds.

import { readCoverage, readDataflows, readFleet } from "./api.js";
import { createCalendar } from "./calendar.js";
import { drawSummary } from "./coverage_summary.js";
import { byId, el, show } from "./dom.js";
import { drawCommands, drawUnplacedRuns } from "./fill_commands.js";
import { drawFillButtons, drawFillRange } from "./fill_dialog.js";
import { drawFleet } from "./fleet.js";
import { counted, countText, dateText, isoText, rangeText, utcText } from "./formats.js";
import { drawLegend } from "./legend.js";
import { stateLabel, STATES } from "./states.js";
import { drawTimeline, windowAt } from "./timeline.js";
import { hideTooltip, showTooltipAt } from "./tooltip.js";
import { readSelection, writeSelection } from "./url_state.js";
import { changedView, KEYS, watchPointer } from "./view_control.js";
import { totalsOf, windowsOf } from "./window_data.js";
import { drawRows, ROWS_PER_PAGE } from "./window_table.js";

const MAX_DATAFLOWS_WITHOUT_SEARCH = 8;
const MAX_RUNS_IN_TOOLTIP = 3;
const DAY = 86_400_000;

const selection = readSelection();
let dataflows = [];
let loaded = null; // {response, range: {from, until}, windows, unplaced}
let view = null; // the visible part of the range, {from, until}
let stateFilter = new Set(selection.states.split(" ").filter((state) => state in STATES));
let selectedWindow = null;
let page = 0;
let pendingRequest = null;
let retry = start;
const calendar = createCalendar(selection, { onSelect: setView, onChange: saveSelection });

// Loading

async function start() {
  retry = start;
  showStatus("Loading ...");
  try {
    dataflows = (await readDataflows()).dataflows;
  } catch (error) {
    return showError(error);
  }
  show(byId("to-fleet"), !isFleet() && !new URLSearchParams(location.search).has("dag_id"));
  if (isFleet()) return loadFleet();
  const candidates = matchingDataflows();
  if (!candidates.length) return showStatus(noDataflowText());
  if (!candidates.some(({ flow_id }) => flow_id === selection.flow_id)) selection.flow_id = candidates[0].flow_id;
  show(byId("search-label"), candidates.length > MAX_DATAFLOWS_WITHOUT_SEARCH);
  drawSelectors();
  await load();
}

/** Without a dataflow and without a DAG, the page shows all dataflows. */
const isFleet = () => !selection.flow_id && !selection.dag_id;

async function loadFleet() {
  retry = loadFleet;
  const { signal } = startRequest();
  try {
    const response = await readFleet(signal);
    if (!response.dataflows.length) {
      return showStatus([noDataflowText(), response.notice, response.warning].filter(Boolean).join(" "));
    }
    const known = new Set(dataflows.map(({ flow_id }) => flow_id));
    drawFleet(response, selection, {
      isLinked: ({ flow_id }) => known.has(flow_id),
      onOpen: ({ flow_id }) => openView({ flow_id }),
      onChange: saveSelection,
    });
    for (const id of ["status", "error", "selection", "coverage"]) show(byId(id), false);
    show(byId("fleet"), true);
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
  } finally {
    if (!signal.aborted) document.body.removeAttribute("aria-busy");
  }
}

/** Show the coverage of a dataflow, or all dataflows if it is empty. The filters of all dataflows are kept. */
function openView({ flow_id }) {
  Object.assign(selection, { flow_id, dag_id: "", from: "", to: "", zoom: "" });
  stateFilter = new Set();
  saveSelection();
  loaded = null;
  start();
}

function startRequest() {
  pendingRequest?.abort();
  pendingRequest = new AbortController();
  document.body.setAttribute("aria-busy", "true");
  return pendingRequest;
}

/** @param conn_id if given, the server also queries Flow Service with this connection. */
async function load(conn_id = "") {
  retry = load;
  const { signal } = startRequest();
  show(byId("selection"), true);
  if (!loaded) showStatus("Loading ...");
  try {
    const { flow_id, dag_id, from, to } = selection;
    showCoverage(await readCoverage({ flow_id, dag_id, from, to, conn_id }, signal), conn_id);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (conn_id) showQueryError(error);
    else showError(error);
  } finally {
    if (!signal.aborted) document.body.removeAttribute("aria-busy");
  }
}

function showCoverage(response, conn_id) {
  performance.mark("received");
  const range = { from: Date.parse(response.from), until: Date.parse(response.to) };
  loaded = { response, range, ...windowsOf(response) };
  view = parseView(selection.zoom, range);
  [selectedWindow, page] = [null, 0];
  byId("from").value = dateText(range.from);
  byId("to").value = dateText(range.until - 1);
  show(byId("status"), false);
  show(byId("error"), false);
  show(byId("service-error"), false);
  show(byId("coverage"), true);
  drawSummary(byId("coverage-summary"), response);
  drawCommands(response.commands, response.again);
  drawUnplacedRuns(loaded.unplaced);
  drawFillButtons(response, { selected: () => fillSelection(conn_id), onEnd: () => load(conn_id) });
  draw();
  performance.measure("drawn", "received");
}

/** Return the visible part of the time line, to fill its windows. */
function fillSelection(conn_id) {
  const [from, to] = [Math.floor(view.from / 1000), Math.ceil(view.until / 1000)].map((edge) => isoText(edge * 1000));
  return { flow_id: selection.flow_id, from, to, conn_id, isWhole: isWholeRange() };
}

function showStatus(text) {
  byId("status").textContent = text;
  show(byId("status"), true);
  show(byId("error"), false);
  show(byId("coverage"), false);
  show(byId("fleet"), false);
}

function showError(error) {
  loaded = null;
  byId("error-text").textContent = error.message;
  byId("error-remedy").textContent = remedyText(error);
  show(byId("error"), true);
  show(byId("status"), false);
  show(byId("coverage"), false);
  show(byId("fleet"), false);
}

function showQueryError(error) {
  byId("service-error").replaceChildren(el("strong", { text: error.message }), el("p", { text: remedyText(error) }));
  show(byId("service-error"), true);
}

const remedyText = ({ remedy }) => (remedy ? `What to do: ${remedy}` : "");

function noDataflowText() {
  const dags = selection.dag_id ? `the DAG ${selection.dag_id}` : "a DAG that you may read";
  return `No task of ${dags} has created a flow run yet. Windows appear here after the first flow run is created.`;
}

// Selecting a dataflow, a DAG and a range

const matchingDataflows = () =>
  dataflows.filter(({ tasks }) => !selection.dag_id || tasks.some(({ dag_id }) => dag_id === selection.dag_id));

function dataflowLabel({ flow_id, tasks }) {
  return `${tasks.map(({ dag_id, task_id }) => `${dag_id}.${task_id}`).join(", ")} (${flow_id})`;
}

function drawSelectors() {
  const searched = byId("search").value.trim().toLowerCase();
  const isShown = (dataflow) =>
    dataflow.flow_id === selection.flow_id || dataflowLabel(dataflow).toLowerCase().includes(searched);
  const shown = matchingDataflows().filter(isShown);
  byId("flow").replaceChildren(
    ...shown.map((dataflow) => option(dataflow.flow_id, dataflowLabel(dataflow), selection.flow_id)),
  );
  byId("flow").disabled = false;
  const { tasks } = dataflows.find(({ flow_id }) => flow_id === selection.flow_id);
  const dags = [...new Set(tasks.map(({ dag_id }) => dag_id))];
  show(byId("dag-label"), dags.length > 1 || selection.dag_id !== "");
  byId("dag").replaceChildren(
    option("", "all DAGs of the dataflow", selection.dag_id),
    ...dags.map((dag) => option(dag, dag, selection.dag_id)),
  );
}

const option = (value, text, current) => el("option", { value, text, selected: value === current });

/** Change a part of the selection, and load its data. */
function changeSelection(changes) {
  Object.assign(selection, changes, { zoom: "" });
  saveSelection();
  drawSelectors();
  load();
}

function saveSelection() {
  writeSelection({ ...selection, states: [...stateFilter].join(" ") });
}

/** Parse a view, `from/until` in ISO 8601; return the whole range if the view is not within it. */
function parseView(text, range) {
  const [from, until] = text.split("/").map((edge) => Date.parse(edge));
  return from >= range.from && until <= range.until && from < until ? { from, until } : { ...range };
}

// Drawing

const isVisible = (window) => window.until > view.from && window.from < view.until;
const passesFilter = ({ state }) => !stateFilter.size || stateFilter.has(state);
const isWholeRange = () => view.from === loaded.range.from && view.until === loaded.range.until;

function draw() {
  const visible = loaded.windows.filter(isVisible);
  byId("view-text").textContent = rangeText(view.from, view.until);
  drawTimeline(byId("timeline"), { windows: loaded.windows, view, selected: selectedWindow, stateFilter });
  const { windows, range, response } = loaded;
  calendar.update({ windows, range, view, stateFilter, now: Date.parse(response.now) });
  drawLegend(byId("legend"), { totals: totalsOf(visible), stateFilter, onToggle: toggleState });
  drawPage(visible.filter(passesFilter).reverse());
  drawFillRange(isWholeRange(), view);
  for (const id of ["zoom-out", "zoom-all", "earlier", "later"]) byId(id).disabled = isWholeRange();
}

function drawPage(shown) {
  const pages = Math.max(1, Math.ceil(shown.length / ROWS_PER_PAGE));
  page = Math.min(page, pages - 1);
  const first = page * ROWS_PER_PAGE;
  const rows = shown.slice(first, first + ROWS_PER_PAGE);
  drawRows(byId("rows"), rows, { selected: selectedWindow });
  const position = `${countText(first + 1)} to ${countText(first + rows.length)}`;
  byId("rows-text").textContent = shown.length
    ? `${position} of ${counted(shown.length, "window")}, newest first`
    : "No windows in this part of the timeline.";
  byId("newer").disabled = page === 0;
  byId("older").disabled = page >= pages - 1;
  show(byId("pager"), pages > 1);
  show(byId("windows"), rows.length > 0);
}

function changePage(pages) {
  page += pages;
  draw();
  byId("windows-title").scrollIntoView({ block: "nearest" });
}

function toggleState(state) {
  if (!stateFilter.delete(state)) stateFilter.add(state);
  page = 0;
  saveSelection();
  draw();
}

function setView(newView) {
  view = newView;
  page = 0;
  const edges = [view.from, view.until].map((edge) => isoText(Math.floor(edge / 1000) * 1000));
  selection.zoom = isWholeRange() ? "" : edges.join("/");
  saveSelection();
  draw();
}

/** Select a window and show its row. If the filter hides the window, the filter is cleared. */
function selectWindow(window) {
  if (!window) return;
  selectedWindow = window;
  if (!passesFilter(window)) stateFilter = new Set();
  const shown = loaded.windows.filter((each) => isVisible(each) && passesFilter(each));
  page = Math.floor((shown.length - 1 - shown.indexOf(window)) / ROWS_PER_PAGE);
  draw();
  byId("rows").querySelector(".selected")?.scrollIntoView({ block: "center" });
}

// Input

function timeAt(pixels) {
  const width = byId("timeline").clientWidth;
  const fraction = Math.min(Math.max(pixels / width, 0), 1);
  return view.from + fraction * (view.until - view.from);
}

function showTooltip(time, event) {
  const window = time === null ? null : windowAt(loaded.windows, time);
  if (!window) return hideTooltip();
  const runIds = window.tasks.slice(0, MAX_RUNS_IN_TOOLTIP).map(({ dag_run_id }) => dag_run_id);
  showTooltipAt(
    { x: event.clientX, y: event.clientY },
    el("strong", { text: `${STATES[window.state].sign} ${stateLabel(window)}` }),
    el("span", { text: `${utcText(window.start)} to ${utcText(window.end)}` }),
    ...runIds.map((text) => el("span", { class: "quiet", text })),
  );
}

watchPointer(byId("timeline"), {
  timeAt,
  onDrag: (from, until) => setView(changedView({ from, until }, loaded.range, {})),
  onClick: (time) => selectWindow(windowAt(loaded.windows, time)),
  onHover: showTooltip,
});
const KEYS_OF_BUTTONS = { earlier: "ArrowLeft", later: "ArrowRight", "zoom-in": "+", "zoom-out": "-", "zoom-all": "0" };
for (const [id, key] of Object.entries(KEYS_OF_BUTTONS)) {
  byId(id).addEventListener("click", () => setView(changedView(view, loaded.range, KEYS[key])));
}
byId("timeline").addEventListener("keydown", (event) => {
  if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  setView(changedView(view, loaded.range, KEYS[event.key]));
});
const onChange = (id, changesOf) =>
  byId(id).addEventListener("change", ({ target }) => changeSelection(changesOf(target.value)));
byId("newer").addEventListener("click", () => changePage(-1));
byId("older").addEventListener("click", () => changePage(1));
byId("retry").addEventListener("click", () => retry());
byId("search").addEventListener("input", drawSelectors);
onChange("flow", (flow_id) => ({ flow_id, from: "", to: "" }));
onChange("dag", (dag_id) => ({ dag_id }));
onChange("from", (day) => ({ from: day && `${day}T00:00:00Z` }));
onChange("to", (day) => ({ to: endOfDay(day) }));
for (const id of ["selection", "fleet-filters"]) byId(id).addEventListener("submit", (event) => event.preventDefault());
byId("to-fleet").addEventListener("click", (event) => {
  event.preventDefault();
  openView({ flow_id: "" });
});
byId("query").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("query-button").disabled = true;
  await load(byId("conn").value.trim());
  byId("query-button").disabled = false;
});
new ResizeObserver(() => loaded && draw()).observe(byId("timeline"));

/** Return the end of a day, which the range includes; empty (for the current time) if it is in the future. */
function endOfDay(day) {
  const end = Date.parse(`${day}T00:00:00Z`) + DAY;
  return !day || end > Date.now() ? "" : isoText(end);
}

start();

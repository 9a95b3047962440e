// The page: what is chosen, what is loaded, and what is drawn of it.

import { readCoverage, readDataflows } from "./api.js";
import { KEYS, moved, watch } from "./brush.js";
import { readChoice, writeChoice } from "./choice.js";
import { byId, el, show } from "./dom.js";
import { drawCommands, drawUnplaced } from "./gaps.js";
import { drawLegend } from "./legend.js";
import { STATES } from "./states.js";
import { drawRows, ROWS_OF_A_PAGE } from "./table.js";
import { drawTimeline, windowAt } from "./timeline.js";
import { counted, countText, dateText, isoText, rangeText, utcText } from "./times.js";
import { drawVerdict } from "./verdict.js";
import { totalsOf, windowsOf } from "./windows.js";

const MANY = 8;
const DAY = 86_400_000;

const choice = readChoice();
let dataflows = [];
let loaded = null; // the answer, its windows, and the range in milliseconds
let view = null; // the part of the range that is shown
let chosen = new Set(choice.states.split(" ").filter((state) => state in STATES));
let selected = null;
let page = 0;
let loading = null;
let again = start;

// Loading

async function start() {
  again = start;
  say("Loading ...");
  try {
    dataflows = (await readDataflows()).dataflows;
  } catch (error) {
    return fail(error);
  }
  if (!fitting().length) return say(nothingYet());
  if (!fitting().some(({ flow_id }) => flow_id === choice.flow_id)) choice.flow_id = fitting()[0].flow_id;
  show(byId("search-label"), fitting().length > MANY);
  drawChoosers();
  await load();
}

/** @param conn_id asks Flow Service too. */
async function load(conn_id = "") {
  again = load;
  loading?.abort();
  loading = new AbortController();
  const { signal } = loading;
  document.body.setAttribute("aria-busy", "true");
  if (!loaded) say("Loading ...");
  try {
    const { flow_id, dag_id, from, to } = choice;
    const answer = await readCoverage({ flow_id, dag_id, from, to, conn_id }, signal);
    take(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (conn_id) failToAsk(error);
    else fail(error);
  } finally {
    if (!signal.aborted) document.body.removeAttribute("aria-busy");
  }
}

function take(answer) {
  performance.mark("taken");
  const range = { from: Date.parse(answer.from), until: Date.parse(answer.to) };
  loaded = { answer, range, ...windowsOf(answer) };
  view = zoomOf(choice.zoom, range);
  [selected, page] = [null, 0];
  byId("from").value = dateText(range.from);
  byId("to").value = dateText(range.until - 1);
  show(byId("status"), false);
  show(byId("error"), false);
  show(byId("service-error"), false);
  show(byId("coverage"), true);
  drawVerdict(byId("verdict"), answer);
  drawCommands(answer.commands, answer.again);
  drawUnplaced(loaded.unplaced);
  draw();
  performance.measure("drawn", "taken");
}

function say(text) {
  byId("status").textContent = text;
  show(byId("status"), true);
  show(byId("error"), false);
  show(byId("coverage"), false);
}

function fail(error) {
  loaded = null;
  byId("error-text").textContent = error.message;
  byId("error-remedy").textContent = remedyOf(error);
  show(byId("error"), true);
  show(byId("status"), false);
  show(byId("coverage"), false);
}

function failToAsk(error) {
  byId("service-error").replaceChildren(el("strong", { text: error.message }), el("p", { text: remedyOf(error) }));
  show(byId("service-error"), true);
}

const remedyOf = ({ remedy }) => (remedy ? `What to do: ${remedy}` : "");

function nothingYet() {
  const whose = choice.dag_id ? `the DAG ${choice.dag_id}` : "a DAG that you may read";
  return `No task of ${whose} has created a flow run yet. Windows appear here as soon as one has.`;
}

// Choosing

const fitting = () =>
  dataflows.filter(({ tasks }) => !choice.dag_id || tasks.some(({ dag_id }) => dag_id === choice.dag_id));

const labelOf = ({ flow_id, tasks }) => `${tasks.map(({ dag_id, task_id }) => `${dag_id}.${task_id}`).join(", ")} (${flow_id})`;

function drawChoosers() {
  const sought = byId("search").value.trim().toLowerCase();
  const shown = fitting().filter((each) => each.flow_id === choice.flow_id || labelOf(each).toLowerCase().includes(sought));
  byId("flow").replaceChildren(...shown.map((each) => option(each.flow_id, labelOf(each), choice.flow_id)));
  byId("flow").disabled = false;
  const dags = [...new Set(dataflows.find(({ flow_id }) => flow_id === choice.flow_id).tasks.map(({ dag_id }) => dag_id))];
  show(byId("dag-label"), dags.length > 1 || choice.dag_id !== "");
  byId("dag").replaceChildren(
    option("", "all that feed it", choice.dag_id),
    ...dags.map((dag) => option(dag, dag, choice.dag_id)),
  );
}

const option = (value, text, current) => el("option", { value, text, selected: value === current });

/** Take over a part of the choice, and load it. */
function choose(part) {
  Object.assign(choice, part, { zoom: "" });
  keep();
  drawChoosers();
  load();
}

function keep() {
  writeChoice({ ...choice, states: [...chosen].join(" ") });
}

function zoomOf(text, range) {
  const [from, until] = text.split("/").map((edge) => Date.parse(edge));
  return from >= range.from && until <= range.until && from < until ? { from, until } : { ...range };
}

// Drawing

function draw() {
  const { windows, range } = loaded;
  const visible = windows.filter((each) => each.until > view.from && each.from < view.until);
  const shown = visible.filter(({ state }) => !chosen.size || chosen.has(state)).reverse();
  byId("view-text").textContent = rangeText(view.from, view.until);
  drawTimeline(byId("timeline"), { windows, view, selected, chosen });
  drawLegend(byId("legend"), { totals: totalsOf(visible), chosen, onToggle: toggle });
  drawPage(shown);
  const whole = view.from === range.from && view.until === range.until;
  for (const id of ["zoom-out", "zoom-all", "earlier", "later"]) byId(id).disabled = whole;
}

function drawPage(shown) {
  const pages = Math.max(1, Math.ceil(shown.length / ROWS_OF_A_PAGE));
  page = Math.min(page, pages - 1);
  const first = page * ROWS_OF_A_PAGE;
  const rows = shown.slice(first, first + ROWS_OF_A_PAGE);
  drawRows(byId("rows"), rows, { selected });
  byId("rows-text").textContent = shown.length
    ? `${countText(first + 1)} to ${countText(first + rows.length)} of ${counted(shown.length, "window")}, newest first`
    : "None in this part of the time line.";
  byId("newer").disabled = page === 0;
  byId("older").disabled = page >= pages - 1;
  show(byId("pager"), pages > 1);
  show(byId("windows"), rows.length > 0);
}

function turn(pages) {
  page += pages;
  draw();
  byId("windows-title").scrollIntoView({ block: "nearest" });
}

function toggle(state) {
  if (!chosen.delete(state)) chosen.add(state);
  page = 0;
  keep();
  draw();
}

function look(next) {
  const { range } = loaded;
  view = next;
  page = 0;
  const whole = view.from === range.from && view.until === range.until;
  choice.zoom = whole ? "" : `${isoText(Math.floor(view.from / 1000) * 1000)}/${isoText(Math.floor(view.until / 1000) * 1000)}`;
  keep();
  draw();
}

/** Show a window in the table, whatever is filtered. */
function select(window) {
  if (!window) return;
  selected = window;
  if (chosen.size && !chosen.has(window.state)) chosen = new Set();
  const shown = loaded.windows.filter(
    (each) => each.until > view.from && each.from < view.until && (!chosen.size || chosen.has(each.state)),
  );
  page = Math.floor((shown.length - 1 - shown.indexOf(window)) / ROWS_OF_A_PAGE);
  draw();
  byId("rows").querySelector(".selected")?.scrollIntoView({ block: "center" });
}

// Listening

function momentAt(pixels) {
  const width = byId("timeline").clientWidth;
  const part = Math.min(Math.max(pixels / width, 0), 1);
  return view.from + part * (view.until - view.from);
}

function tell(moment, event) {
  const window = moment === null ? null : windowAt(loaded.windows, moment);
  const tip = byId("tip");
  show(tip, window !== null);
  if (!window) return;
  tip.replaceChildren(
    el("strong", { text: `${STATES[window.state].sign} ${STATES[window.state].word}` }),
    el("span", { text: `${utcText(window.start)} to ${utcText(window.end)}` }),
    ...window.tasks.slice(0, 3).map(({ dag_run_id }) => el("span", { class: "quiet", text: dag_run_id })),
  );
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${event.clientY + 18}px`;
}

watch(byId("timeline"), {
  momentAt,
  onDrag: (from, until) => look(moved({ from, until }, loaded.range, {})),
  onClick: (moment) => select(windowAt(loaded.windows, moment)),
  onHover: tell,
});
const steps = { earlier: "ArrowLeft", later: "ArrowRight", "zoom-in": "+", "zoom-out": "-", "zoom-all": "0" };
for (const [id, key] of Object.entries(steps)) {
  byId(id).addEventListener("click", () => look(moved(view, loaded.range, KEYS[key])));
}
byId("timeline").addEventListener("keydown", (event) => {
  if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  look(moved(view, loaded.range, KEYS[event.key]));
});
byId("newer").addEventListener("click", () => turn(-1));
byId("older").addEventListener("click", () => turn(1));
byId("retry").addEventListener("click", () => again());
byId("search").addEventListener("input", drawChoosers);
byId("flow").addEventListener("change", (event) => choose({ flow_id: event.target.value, from: "", to: "" }));
byId("dag").addEventListener("change", (event) => choose({ dag_id: event.target.value }));
byId("from").addEventListener("change", (event) => choose({ from: event.target.value && `${event.target.value}T00:00:00Z` }));
byId("to").addEventListener("change", (event) => choose({ to: endOf(event.target.value) }));
byId("choice").addEventListener("submit", (event) => event.preventDefault());
byId("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("ask-button").disabled = true;
  await load(byId("conn").value.trim());
  byId("ask-button").disabled = false;
});
new ResizeObserver(() => loaded && draw()).observe(byId("timeline"));

/** The day that was chosen is inside; today ends now. */
function endOf(day) {
  const end = Date.parse(`${day}T00:00:00Z`) + DAY;
  return !day || end > Date.now() ? "" : isoText(end);
}

start();

// SPDX-License-Identifier: Apache-2.0
// The overview: one row for each dataflow, the worst first, with a search and filters.

import { byId, el, show, svg } from "./dom.js";
import { counted, localText, utcText } from "./formats.js";
import { linkToAirflow } from "./frame_links.js";
import { swatch } from "./legend.js";
import { STATES } from "./states.js";

/** Parts of the selection that the overview stores in the URL. */
export const FLEET_KEYS = ["find", "show", "sandbox", "dags", "tag"];

const BAR = { width: 160, height: 16 };
const COUNTED = ["twice", "failed", "missing", "unknown", "running"];
const NO_WINDOW = { sign: "", label: "No window", description: "no window is expected or ingested in the range" };
const FILTERS = {
  show: { id: "fleet-state", all: "all states", valuesOf: statesOf, textOf: (state) => STATES[state]?.label ?? NOTES[state] },
  sandbox: { id: "fleet-sandbox", all: "all sandboxes", valuesOf: ({ sandbox }) => [sandbox ?? "unknown"] },
  dags: { id: "fleet-dag", all: "all DAGs", valuesOf: ({ dags }) => dags.map(({ dag_id }) => dag_id) },
  tag: { id: "fleet-tag", all: "all tags", valuesOf: ({ tags }) => tags },
};
const NOTES = { paused: "Paused", stale: "Deleted or broken DAG", none: NO_WINDOW.label };

/**
 * Draw the overview.
 * @param response of the endpoint `fleet`.
 * @param selection the user's selection; the filters are read from it and written to it.
 * @param isLinked return whether the coverage of a dataflow can be opened.
 */
export function drawFleet(response, selection, { isLinked, onOpen, onChange }) {
  const rows = response.dataflows;
  for (const [key, filter] of Object.entries(FILTERS)) drawFilter(filter, rows, selection[key]);
  byId("fleet-search").value = selection.find;
  const update = () => {
    selection.find = byId("fleet-search").value;
    for (const [key, { id }] of Object.entries(FILTERS)) selection[key] = byId(id).value;
    drawTable(rows, selection, { isLinked, onOpen });
    onChange();
  };
  byId("fleet-search").oninput = update;
  for (const { id } of Object.values(FILTERS)) byId(id).onchange = update;
  for (const name of ["notice", "warning"]) {
    byId(`fleet-${name}`).textContent = response[name] ?? "";
    show(byId(`fleet-${name}`), Boolean(response[name]));
  }
  byId("fleet-range").textContent = `Range: ${utcText(response.from).slice(0, 10)} to ${utcText(response.to).slice(0, 16)}`;
  drawTable(rows, selection, { isLinked, onOpen });
}

function drawFilter({ id, all, valuesOf, textOf = (value) => value }, rows, selected) {
  const values = [...new Set(rows.flatMap(valuesOf))].sort();
  if (selected && !values.includes(selected)) values.push(selected);
  const options = values.map((value) => el("option", { value, text: textOf(value), selected: value === selected }));
  byId(id).replaceChildren(el("option", { value: "", text: all }), ...options);
}

function drawTable(rows, selection, { isLinked, onOpen }) {
  const shown = rows.filter((row) => matches(row, selection));
  byId("fleet-rows").replaceChildren(...shown.map((row) => tableRow(row, { isLinked, onOpen })));
  const wrong = shown.filter(({ wrong }) => wrong).length;
  byId("fleet-text").textContent = `${shown.length} of ${counted(rows.length, "dataflow")}, ${wrong} with problems`;
  show(byId("fleet-table"), shown.length > 0);
}

function matches(row, selection) {
  const texts = [row.flow_name, row.flow_id, row.sandbox, ...row.dags.map(({ dag_id }) => dag_id), ...row.tags];
  const found = texts.filter(Boolean).join("\n").toLowerCase().includes(selection.find.trim().toLowerCase());
  return found && Object.entries(FILTERS).every(([key, { valuesOf }]) => isChosen(valuesOf(row), selection[key]));
}

const isChosen = (values, chosen) => !chosen || values.includes(chosen);

/** Return the states by which a row can be found: those of its windows, and those of its DAGs. */
function statesOf(row) {
  const counted = COUNTED.filter((state) => row.windows[state]);
  const ofDags = ["paused", "stale"].filter((name) => row.dags.some((dag) => dag[name]));
  return [...new Set([row.state ?? "none", ...counted, ...ofDags])];
}

function tableRow(row, { isLinked, onOpen }) {
  const { sign, label, description } = STATES[row.state] ?? NO_WINDOW;
  const badge = { class: `badge ${row.state ?? ""}`, title: description };
  return el(
    "tr",
    { "data-flow": row.flow_id },
    cell("State", el("span", badge, row.state && swatch(row.state), `${sign} ${label}`)),
    cell("Dataflow", dataflowElement(row, { isLinked, onOpen }), el("div", { class: "quiet", text: row.sandbox ?? "unknown sandbox" })),
    cell("DAGs", ...row.dags.map((dag) => dagElement(dag, row.undecoded_schedules.includes(dag.dag_id)))),
    cell("Last end", row.last_window ? timeElement(row.last_window.end) : "never"),
    cell("Lag", lagElement(row)),
    cell("Next due", ...(row.next_due ? [timeElement(row.next_due)] : [])),
    cell("Windows", ...countElements(row)),
    cell("Time", bar(row.bar)),
  );
}

function cell(label, ...content) {
  return el("td", { "data-label": label, class: content.length ? null : "nothing" }, ...content);
}

function dataflowElement(row, { isLinked, onOpen }) {
  const text = row.flow_name ?? row.flow_id;
  const kind = row.flow_name ? "name" : "id";
  if (!isLinked(row)) return el("span", { class: kind, title: "No flow run was created yet", text });
  const onclick = (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    onOpen(row);
  };
  const href = `#${new URLSearchParams({ flow_id: row.flow_id })}`;
  return el("a", { class: kind, href, title: `Show the windows of ${row.flow_id}`, text, onclick });
}

function dagElement({ dag_id, paused, stale }, isUndecoded) {
  const notes = stale ? ["deleted or broken"] : [paused && "paused", isUndecoded && "schedule unreadable"].filter(Boolean);
  const note = notes.length ? ` (${notes.join(", ")})` : "";
  return el("div", {}, linkToAirflow(el("a", {}, ...breakable(dag_id)), `/dags/${encodeURIComponent(dag_id)}`), note);
}

/** Return a text that is broken after its separators where it is too long, rather than inside a word. */
const breakable = (text) => text.split(/(?<=[_.-])/).flatMap((part) => [part, el("wbr")]);

const timeElement = (iso) => el("time", { datetime: iso, title: localText(iso), text: utcText(iso).slice(0, 16) });

function lagElement({ lag_seconds, lag_note, complete_until }) {
  const title = lag_note || (complete_until ? `all windows until ${utcText(complete_until)} are ingested` : "");
  return el("span", { title, class: "lag", text: lag_seconds === null ? "unknown" : lagText(lag_seconds) });
}

function lagText(seconds) {
  const minutes = Math.floor(seconds / 60);
  const [days, hours, rest] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24, minutes % 60];
  return days ? `${days} d ${hours} h` : `${hours} h ${rest} min`;
}

function countElements({ windows, has_more }) {
  const shown = COUNTED.filter((state) => windows[state]);
  return shown.map((state) => {
    const more = state === "missing" && has_more ? "+" : "";
    const isBad = ["twice", "failed", "missing"].includes(state);
    const name = state === "unknown" ? "unknown" : STATES[state].label.toLowerCase();
    return el("div", { class: isBad ? "counted bad" : "counted", text: `${windows[state]}${more} ${name}` });
  });
}

/** Return the bar of states; its label has the states in their order of time. */
function bar(states) {
  const parts = [];
  states.forEach((state, index) => {
    const last = parts.at(-1);
    if (last?.state === state) last.length += 1;
    else parts.push({ state, start: index, length: 1 });
  });
  const size = BAR.width / Math.max(states.length, 1);
  const drawn = parts.filter(({ state }) => state in STATES);
  const label = drawn.map(({ state, length }) => `${STATES[state].label} ${Math.round((100 * length) / states.length)} %`);
  return svg(
    "svg",
    {
      class: "fleet-bar",
      viewBox: `0 0 ${BAR.width} ${BAR.height}`,
      ...BAR,
      role: "img",
      "aria-label": label.join(", ") || NO_WINDOW.label,
    },
    svg("rect", { class: "track", ...BAR, rx: 2 }),
    ...drawn.map(({ state, start, length }) =>
      svg("rect", { class: `shape ${state}`, x: start * size, width: length * size, height: BAR.height, fill: `url(#${state})` }),
    ),
  );
}

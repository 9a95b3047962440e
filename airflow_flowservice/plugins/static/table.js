// The windows as a table, newest first, a page at a time.

import { el } from "./dom.js";
import { leadOutside, leadToAirflow, safeAddress } from "./frame.js";
import { swatch } from "./legend.js";
import { STATES } from "./states.js";
import { countText, localText, utcText } from "./times.js";
import { sum } from "./windows.js";

export const ROWS_OF_A_PAGE = 50;

export function drawRows(body, windows, { selected }) {
  body.replaceChildren(...windows.map((window) => row(window, window === selected)));
}

/** A flow run, as a link to Experience Platform where its address may be followed. */
export function flowRun(run, { whole = false } = {}) {
  const text = whole || run.id.length <= 13 ? run.id : `${run.id.slice(0, 8)}…`;
  const address = safeAddress(run.url);
  const title = `Flow run ${run.id}, ${run.status}${run.outside ? ", made by none of these tasks" : ""}`;
  if (!address) return el("span", { class: "id", title, text });
  return leadOutside(el("a", { class: "id", title: `${title}. Open in Experience Platform`, text }), address);
}

function row(window, selected) {
  const { sign, word, text } = STATES[window.state];
  return el(
    "tr",
    { "data-start": window.start, class: selected ? "selected" : null },
    cell("Start", moment(window.start)),
    cell("End", moment(window.end)),
    cell("State", el("span", { class: `badge ${window.state}`, title: text }, swatch(window.state), `${sign} ${word}`)),
    number("Records", sum(window.runs, "records")),
    number("Failed", sum(window.runs, "failed_records")),
    cell("DAG run", ...listed(window.tasks.map(task))),
    cell("Flow run", ...listed(window.runs.map((run) => flowRun(run)))),
  );
}

function cell(label, ...content) {
  return el("td", { "data-label": label, class: content.length ? null : "nothing" }, ...content);
}

function number(label, value) {
  const known = value !== null;
  const classes = `number${label === "Failed" && value ? " bad" : ""}${known ? "" : " nothing"}`;
  return el("td", { "data-label": label, class: classes, text: known ? countText(value) : "" });
}

function moment(iso) {
  return el("time", { datetime: iso, title: localText(iso), text: utcText(iso) });
}

function task({ dag_id, dag_run_id, task_id, map_index, task_state }) {
  const [dag, run, name] = [dag_id, dag_run_id, task_id].map(encodeURIComponent);
  const mapped = map_index >= 0 ? ` [${map_index}]` : "";
  const title = `DAG ${dag_id}, run ${dag_run_id}, task ${task_id}${mapped}: ${task_state ?? "not started"}`;
  return leadToAirflow(el("a", { title, text: `${dag_run_id}${mapped}`, "data-task": name }), `/dags/${dag}/runs/${run}`);
}

const listed = (parts) => parts.map((part) => el("div", {}, part));

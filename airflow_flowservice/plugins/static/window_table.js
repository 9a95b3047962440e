// SPDX-License-Identifier: Apache-2.0
// The table of windows, newest first, one page at a time.

import { el } from "./dom.js";
import { countText, localText, utcText } from "./formats.js";
import { linkToAirflow, linkToOtherSite, safeUrl } from "./frame_links.js";
import { swatch } from "./legend.js";
import { RUN_STATUSES, stateLabel, STATES } from "./states.js";
import { sum } from "./window_data.js";

export const ROWS_PER_PAGE = 50;
const SHORT_ID_LENGTH = 8;
const MAX_ID_LENGTH = 13;

export function drawRows(body, windows, { selected }) {
  body.replaceChildren(...windows.map((window) => row(window, window === selected)));
}

/** Return a flow run's id, as a link to Experience Platform if the run has a safe URL. */
export function flowRunElement(run, { fullId = false } = {}) {
  const text = fullId || run.id.length <= MAX_ID_LENGTH ? run.id : `${run.id.slice(0, SHORT_ID_LENGTH)}…`;
  const url = safeUrl(run.url);
  const status = RUN_STATUSES[run.status] ?? run.status;
  const batch = run.batch ? `, batch in the catalogue: ${run.batch}` : "";
  const origin = `${run.outside ? ", not created by these tasks" : ""}${run.replaced ? ", replaced on request" : ""}`;
  const title = `Flow run ${run.id}, ${status}${batch}${origin}`;
  if (!url) return el("span", { class: "id", title, text });
  return linkToOtherSite(el("a", { class: "id", title: `${title}. Open in Experience Platform`, text }), url);
}

/** Return an element with the number of further entries, if there are any. */
function more(count) {
  return count ? [el("span", { text: `and ${count} more` })] : [];
}

function row(window, isSelected) {
  const { sign, description } = STATES[window.state];
  const badge = { class: `badge ${window.state}`, title: description };
  return el(
    "tr",
    { "data-start": window.start, class: isSelected ? "selected" : null },
    cell("Start", timeElement(window.start)),
    cell("End", timeElement(window.end)),
    cell("State", el("span", badge, swatch(window.state), `${sign} ${stateLabel(window)}`)),
    numberCell("Records", sum(window.runs, "records")),
    failedCell(window.runs),
    cell("DAG run", ...lines([...window.tasks.map(taskLink), ...more(window.moreTasks)])),
    cell("Flow run", ...lines([...window.runs.map((run) => flowRunElement(run)), ...more(window.moreRuns)])),
  );
}

function cell(label, ...content) {
  return el("td", { "data-label": label, class: content.length ? null : "nothing" }, ...content);
}

function numberCell(label, value) {
  const isKnown = value !== null;
  const classes = `number${label === "Failed" && value ? " bad" : ""}${isKnown ? "" : " nothing"}`;
  return el("td", { "data-label": label, class: classes, text: isKnown ? countText(value) : "" });
}

/** Return the cell of the failed records, marked if Flow Service did not report one of the counts. */
function failedCell(runs) {
  const made = numberCell("Failed", sum(runs, "failed_records"));
  if (runs.some((run) => run.failed_records_derived)) {
    made.append(el("span", { title: "Derived from the records read and written", text: " (derived)" }));
  }
  return made;
}

function timeElement(iso) {
  return el("time", { datetime: iso, title: localText(iso), text: utcText(iso) });
}

function taskLink({ dag_id, dag_run_id, task_id, map_index, task_state }) {
  const [dag, run, name] = [dag_id, dag_run_id, task_id].map(encodeURIComponent);
  const mapIndex = map_index >= 0 ? ` [${map_index}]` : "";
  const title = `DAG ${dag_id}, run ${dag_run_id}, task ${task_id}${mapIndex}: ${task_state ?? "not started"}`;
  const anchor = el("a", { title, text: `${dag_run_id}${mapIndex}`, "data-task": name });
  return linkToAirflow(anchor, `/dags/${dag}/runs/${run}`);
}

const lines = (elements) => elements.map((element) => el("div", {}, element));

// SPDX-License-Identifier: Apache-2.0
// The dialog that previews a fill, asks for confirmation, and shows the progress until the windows have ended.

import { readCoverage, readFill } from "./api.js";
import { copyButton } from "./copy.js";
import { byId, el, show } from "./dom.js";
import { expiredLogin, fillWindows, wait } from "./fill_requests.js";
import { counted, countText, rangeText, utcText } from "./formats.js";
import { windowsOf } from "./window_data.js";

const POLL_MS = 5000;
const BATCHES_A_DAY = 90; // Adobe's guardrail for Profile, for each sandbox
const GUARDRAIL =
  `Adobe's guardrail for Profile is ${BATCHES_A_DAY} batches a day for each sandbox. ` +
  "Longer windows need fewer flow runs.";
const NOT_QUERIED = "Flow Service was not queried: windows that other systems ingested count as missing.";
const CHUNKS = [
  ["", "one DAG run for each window"],
  ["1w", "windows of at most a week"],
  ["31d", "windows of at most 31 days"],
  ["1mo", "windows of at most a month"],
];
const TEXTS = {
  fill: { title: "Fill gaps", nothing: "There is no gap to fill." },
  retry: { title: "Retry failed windows", nothing: "No window has failed." },
  restate: { title: "Ingest again", nothing: "No window is ingested." },
};
const ACTIONS = { backfill: "backfill", clear: "clear task", trigger: "trigger" };
const WAITING = "waiting"; // not requested yet: an earlier failure is no end
const OPEN_STATES = new Set([WAITING, "running", "missing"]);
const ENDED_TASK_STATES = new Set(["success", "failed", "upstream_failed", "skipped", "removed"]);
const URGENT_STATES = ["running", "failed", "missing", "unknown", "twice"];

/**
 * Enable the buttons for the loaded coverage, or state why they are disabled.
 *
 * @param selected returns the selection: flow_id, dag_id, from, to, conn_id, isWhole.
 * @param onEnd called when the dialog is closed after a change.
 */
export function drawFillButtons(response, { selected, onEnd }) {
  const [dagId] = response.dag_ids;
  const reason =
    response.dag_ids.length > 1
      ? "Several DAGs ingest into this dataflow. Choose one above to fill its windows."
      : response.fill_refusals[dagId];
  const counts = countsOf(response);
  for (const [purpose, count] of Object.entries(counts)) {
    const button = byId(`${purpose}-button`);
    button.disabled = Boolean(reason) || count === 0;
    button.onclick = () => openDialog(purpose, { ...selected(), dag_id: dagId }, onEnd);
  }
  byId("fill-reason").textContent = reason ?? "";
  show(byId("fill-reason"), Boolean(reason));
  show(byId("fill"), Object.values(counts).some(Boolean));
}

/** Show which part of the time line the buttons apply to. */
export function drawFillRange(isWhole, view) {
  byId("fill-button").textContent = isWhole ? "Fill all gaps" : "Fill the visible gaps";
  const range = rangeText(view.from, view.until);
  byId("fill-range").textContent = isWhole ? "" : `In the visible part of the timeline: ${range}.`;
}

function countsOf({ totals }) {
  const sumOf = (...states) => states.reduce((sum, state) => sum + totals[state].windows, 0);
  return {
    fill: sumOf("missing", "failed"),
    retry: sumOf("failed"),
    restate: sumOf("ingested", "restated", "outside", "twice"),
  };
}

function openDialog(purpose, selection, onEnd) {
  const dialog = new FillDialog(purpose, selection, onEnd);
  document.body.append(dialog.element);
  dialog.element.showModal();
  dialog.loadPreview();
}

class FillDialog {
  constructor(purpose, { isWhole, ...selection }, onEnd) {
    this.purpose = purpose;
    this.selection = { ...selection, purpose };
    this.onEnd = onEnd;
    this.stopping = new AbortController();
    this.isStarted = false;
    this.body = el("div", { class: "fill-body" });
    this.buttons = el("div", { class: "fill-buttons" });
    this.element = el(
      "dialog",
      { class: "fill-dialog", "aria-labelledby": "fill-dialog-title" },
      el("h2", { id: "fill-dialog-title", text: TEXTS[purpose].title }),
      el("p", { class: "quiet", text: `DAG ${selection.dag_id}, dataflow ${selection.flow_id}` }),
      this.body,
      this.buttons,
    );
    this.element.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.close();
    });
  }

  /** Close the dialog, and stop before the next request. */
  close() {
    this.stopping.abort();
    this.element.close();
    this.element.remove();
    if (this.isStarted) this.onEnd();
  }

  async loadPreview() {
    const status = el("p", { class: "quiet", role: "status", text: "Loading the preview ..." });
    this.show([status], [this.closeButton("Cancel")]);
    try {
      const { chunk } = this.selection;
      const plan = await readFill(this.selection, this.stopping.signal);
      if (chunk !== this.selection.chunk) return; // a later preview follows
      this.plan = plan;
      this.drawPreview();
    } catch (error) {
      if (error.name !== "AbortError") this.showError(error);
    }
  }

  drawPreview() {
    const { plan, purpose } = this;
    const text = confirmText(purpose, plan);
    const confirm = el("button", { type: "button", class: "primary", id: "fill-confirm", text });
    const summary = plan.dag_runs ? `This would ${dagRunsText(plan)}:` : TEXTS[purpose].nothing;
    confirm.disabled = Boolean(plan.refusal) || this.purpose === "restate";
    confirm.addEventListener("click", () => this.start(confirm));
    this.show(
      [
        el("p", { id: "fill-text", role: "status", text: summary }),
        ...notesOf(plan, this.selection).map((text) => el("p", { class: "note", text })),
        this.chunkControl(),
        plan.dag_runs ? windowTable(plan) : null,
        plan.dag_runs ? requestList(plan) : null,
        plan.dag_runs && this.purpose === "restate" ? this.numberControl(confirm) : null,
      ],
      plan.dag_runs ? [this.closeButton("Cancel"), confirm] : [this.closeButton("Close")],
    );
  }

  chunkControl() {
    if (this.purpose === "retry") return null;
    const { chunk = "" } = this.selection;
    const options = CHUNKS.map(([value, text]) => el("option", { value, text, selected: value === chunk }));
    const select = el("select", { id: "fill-chunk" }, ...options);
    select.addEventListener("change", () => {
      this.selection.chunk = select.value;
      this.loadPreview();
    });
    return el("label", { class: "fill-control", text: "Fill by " }, select);
  }

  /** Ingesting again duplicates records in a dataflow that appends, so the user types the number. */
  numberControl(confirm) {
    const count = String(this.plan.dag_runs);
    const input = el("input", { id: "fill-number", inputmode: "numeric", autocomplete: "off" });
    input.addEventListener("input", () => {
      confirm.disabled = Boolean(this.plan.refusal) || input.value.trim() !== count;
    });
    const text = `The records of a dataflow that appends are then duplicated. Type ${count} to confirm `;
    return el("label", { class: "fill-control", text }, input);
  }

  /** Send the requests; a second click does nothing. */
  async start(confirm) {
    if (this.isStarted) return;
    this.isStarted = true;
    confirm.disabled = true;
    const progress = new Progress(this.plan);
    this.show(
      [el("p", { text: "Keep this page open until all DAG runs are created." }), progress.element],
      [this.closeButton("Stop")],
    );
    try {
      await this.fill(progress);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.stopping.abort();
      this.showError(error, progress.element);
    }
  }

  /** Send the requests, and show the states until all windows have ended. */
  async fill(progress) {
    const { signal } = this.stopping;
    let isRequested = false;
    let isAttempted = () => false;
    const requested = fillWindows(this.selection, this.plan, {
      signal,
      onProgress: (state) => {
        isAttempted = state.isAttempted;
        progress.drawRequested(state);
      },
    }).then((result) => {
      if (signal.aborted) return;
      isRequested = true;
      this.buttons.replaceChildren(this.closeButton("Close"));
      this.body.firstChild.textContent = requestedText(result);
    });
    const watched = watch(this.selection, this.plan, {
      signal,
      isRequested: () => isRequested,
      isAttempted: (window) => isAttempted(window),
      onStates: (states) => progress.drawStates(states),
    });
    await Promise.all([requested, watched]);
  }

  show(children, buttons) {
    this.body.replaceChildren(...children.filter(Boolean));
    this.buttons.replaceChildren(...buttons);
  }

  showError(error, ...more) {
    const { message, remedy } = error.status === 401 ? expiredLogin() : error;
    const alert = el(
      "div",
      { class: "error", role: "alert" },
      el("strong", { text: message }),
      el("p", { text: remedy ? `What to do: ${remedy}` : "" }),
    );
    this.show([alert, ...more], [this.closeButton("Close")]);
  }

  closeButton(text) {
    return el("button", { type: "button", class: "fill-close", text, onclick: () => this.close() });
  }
}

class Progress {
  constructor(plan) {
    this.total = plan.dag_runs;
    this.created = el("p", { id: "fill-progress", role: "status" });
    this.bar = el("progress", { max: this.total, value: 0, "aria-label": "Windows that have ended" });
    this.states = el("p", { id: "fill-states", class: "quiet", role: "status" });
    this.element = el("div", { class: "fill-progress" }, this.created, this.bar, this.states);
  }

  drawRequested({ requested, waiting }) {
    const reason = waiting
      ? ` Waiting for backfill ${waiting.id}, because Airflow runs one backfill of a DAG at a time.`
      : "";
    this.created.textContent = `${requested} of ${this.total} requested.${reason}`;
  }

  drawStates(states) {
    const counts = {};
    for (const state of states) counts[state] = (counts[state] ?? 0) + 1;
    const ended = states.filter((state) => !OPEN_STATES.has(state)).length;
    this.bar.value = ended;
    const nameOf = (state) => (state === "twice" ? "duplicated" : state);
    const parts = Object.entries(counts).map(([state, count]) => `${countText(count)} ${nameOf(state)}`);
    this.states.textContent = `${countText(ended)} of ${counted(this.total, "window")} ended: ${parts.join(", ")}.`;
  }
}

/** Read the coverage until all windows are requested and none is running. */
async function watch({ flow_id, dag_id, from, to, conn_id }, plan, { signal, isRequested, isAttempted, onStates }) {
  const windows = plan.steps.flatMap((step) => step.windows);
  while (!signal.aborted) {
    const isLast = isRequested();
    const loaded = windowsOf(await readCoverage({ flow_id, dag_id, from, to, conn_id }, signal)).windows;
    const states = windows.map((window) => (isLast || isAttempted(window) ? stateOf(window, loaded) : WAITING));
    onStates(states);
    if (isLast && !states.includes("running")) return;
    await wait(POLL_MS, signal);
  }
}

/** Return the most urgent state of the parts of a window. */
function stateOf({ window_start, window_end }, loaded) {
  const [from, until] = [Date.parse(window_start), Date.parse(window_end)];
  const parts = loaded.filter((part) => part.until > from && part.from < until).map(activeState);
  return URGENT_STATES.find((state) => parts.includes(state)) ?? parts[0] ?? "missing";
}

/** Return the state of a window; while a task is active, another state is not final. */
function activeState({ state, tasks }) {
  return tasks.some(({ task_state }) => !ENDED_TASK_STATES.has(task_state)) ? "running" : state;
}

function dagRunsText({ steps }) {
  const windows = steps.flatMap((step) => step.windows);
  const again = windows.filter(({ dag_run_id }) => dag_run_id).length;
  const created = windows.length - again;
  return [
    ...(created ? [`create ${counted(created, "DAG run")}`] : []),
    ...(again ? [created ? `run ${countText(again)} again` : `run ${counted(again, "DAG run")} again`] : []),
  ].join(" and ");
}

function confirmText(purpose, { dag_runs: count }) {
  if (purpose === "restate") return `Ingest ${counted(count, "window")} again`;
  return purpose === "retry" ? `Retry ${counted(count, "window")}` : `Fill ${counted(count, "window")}`;
}

function requestedText({ requested, confirmed }) {
  const rest = confirmed - requested;
  const omitted = rest ? ` Omitted, because no longer open: ${counted(rest, "window")}.` : "";
  return `All DAG runs are requested.${omitted}`;
}

function notesOf(plan, { purpose, conn_id }) {
  const isRestate = purpose === "restate";
  return [
    ...(plan.refusal ? [plan.refusal] : []),
    ...(plan.paused ? ["The DAG is paused, so its DAG runs stay queued until you unpause it."] : []),
    ...(plan.unknown ? [`Not filled, because they may be ingested: ${counted(plan.unknown, "window")}.`] : []),
    ...(plan.unplaced && !isRestate
      ? [`Without a known window: ${counted(plan.unplaced, "flow run")}. Each may have ingested one of these windows.`]
      : []),
    ...(plan.dag_runs > BATCHES_A_DAY ? [GUARDRAIL] : []),
    ...(conn_id || isRestate ? [] : [NOT_QUERIED]),
  ];
}

function windowTable({ steps }) {
  const rows = steps.flatMap((step) => step.windows.map((window) => windowRow(step, window)));
  const heads = ["Start", "End, exclusive", "Action", "DAG run"].map((text) => el("th", { scope: "col", text }));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody", { id: "fill-windows" }, ...rows));
  return el("div", { class: "fill-windows", tabindex: "0", role: "group", "aria-label": "Windows" }, table);
}

function windowRow({ action }, { window_start, window_end, dag_run_id, task_id }) {
  const run = dag_run_id ? `${action === "clear" ? `task ${task_id}` : "all tasks"} of ${dag_run_id}` : "new";
  const cells = [utcText(window_start), utcText(window_end), ACTIONS[action], run];
  const labels = ["Start", "End", "Action", "DAG run"];
  return el("tr", {}, ...cells.map((text, index) => el("td", { text, "data-label": labels[index] })));
}

function requestList({ command, steps }) {
  const requests = steps.flatMap((step) => step.requests);
  const texts = requests.map(({ method, path, body }) => `${method} ${path} ${JSON.stringify(body)}`);
  return el(
    "details",
    { class: "fill-requests" },
    el("summary", { text: "The same by command line or REST" }),
    el("ul", { class: "commands" }, ...[...(command ? [command] : []), ...texts].map(commandItem)),
  );
}

const commandItem = (text) => el("li", {}, el("code", { text }), copyButton(text));

// SPDX-License-Identifier: Apache-2.0
// The states of windows and the statuses of flow runs as text.
// The keys are those of the server's JSON. page.css and page.html have the colours and patterns under the same keys.

export const STATES = {
  ingested: { sign: "✓", label: "Ingested", description: "a flow run of these tasks succeeded, at least in part" },
  running: { sign: "…", label: "Running", description: "the task or its flow run is scheduled or in progress" },
  failed: { sign: "✕", label: "Failed", description: "the flow run or the task failed" },
  missing: { sign: "–", label: "Missing", description: "expected by a DAG run or the schedule, but not ingested" },
  twice: { sign: "2×", label: "Duplicated", description: "more than one flow run succeeded" },
  outside: { sign: "↗", label: "External", description: "ingested by a flow run that none of these tasks created" },
  restated: { sign: "↻", label: "Restated", description: "ingested again on request, which the ledger records" },
  unknown: { sign: "?", label: "Unknown outcome", description: "no record shows whether the window is ingested" },
};

export const RUN_STATUSES = {
  scheduled: "scheduled",
  in_progress: "running",
  success: "ingested",
  partial_success: "ingested in part",
  failed: "failed",
  ended_unclear: "ended, unknown outcome",
  unknown: "unknown outcome",
};

/** Order in which the states are drawn: if windows are narrower than a pixel, a later state covers an earlier one. */
export const DRAW_ORDER = ["ingested", "restated", "outside", "running", "unknown", "twice", "failed", "missing"];

const NOT_STARTED = new Set([null, undefined, "none", "scheduled", "queued"]);

/** Return the text of a window's state; windows ingested in part and scheduled windows have separate texts. */
export function stateLabel({ state, tasks, runs }) {
  if (state === "ingested" && runs.some(({ status }) => status === "partial_success")) return "Ingested in part";
  const isScheduled = runs.length
    ? runs.every(({ status }) => status === "scheduled")
    : tasks.every(({ task_state }) => NOT_STARTED.has(task_state));
  if (state === "running" && isScheduled) return "Scheduled";
  return STATES[state].label;
}

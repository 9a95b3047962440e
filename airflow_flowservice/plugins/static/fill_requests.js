// SPDX-License-Identifier: Apache-2.0
// Requests that fill windows: the preview of this page's server, and Airflow's public REST API with the user's login.

import { AIRFLOW } from "./frame_links.js";
import { readFill, RequestError } from "./api.js";

const POLL_MS = 10_000;
const CONFLICT = 409;
const CREATED_STATUSES = new Set([200, 201]);

const key = ({ window_start, window_end }) => `${window_start}/${window_end}`;

/**
 * Fill confirmed windows exactly once, in the order of the steps.
 *
 * Before each step, the plan is read again, so that a window that another user, another tab or the scheduler fills
 * meanwhile is omitted. A window is requested at most once. A response that is lost is not repeated: the next preview
 * shows whether the request arrived.
 *
 * @param selection parameters of the preview: flow_id, dag_id, from, to, purpose, chunk, conn_id.
 * @param plan the preview that the user confirmed.
 * @param onProgress called with {requested, waiting, isAttempted}: the number of windows, the backfill that is waited
 *   for, and a function that returns whether a window was requested.
 * @param signal stops between two requests.
 */
export async function fillWindows(selection, plan, { onProgress, signal, pause = wait }) {
  const confirmed = new Set(plan.steps.flatMap(({ windows }) => windows.map(key)));
  const attempted = new Set();
  const isAttempted = (window) => attempted.has(key(window));
  while (!signal.aborted) {
    const { steps } = await readFill(selection, signal);
    const [step] = openSteps(steps, { confirmed, attempted });
    if (!step) break;
    const waiting = step.action === "backfill" ? await activeBackfill(selection.dag_id) : null;
    onProgress({ requested: attempted.size, waiting, isAttempted });
    if (waiting) await pause(POLL_MS, signal);
    else if (!signal.aborted) await request(step, attempted);
  }
  onProgress({ requested: attempted.size, waiting: null, isAttempted });
  return { requested: attempted.size, confirmed: confirmed.size };
}

/** Return the steps whose windows are all confirmed; throw if a range of dates has other windows now. */
function openSteps(steps, { confirmed, attempted }) {
  return steps.flatMap((step) => {
    const open = step.windows.filter((window) => confirmed.has(key(window)) && !attempted.has(key(window)));
    if (!open.length) return [];
    if (open.length === step.windows.length) return [step];
    if (step.action !== "backfill") return [selectedPart(step, open)];
    throw new RequestError("The gaps have changed since the preview", "open the preview again", CONFLICT);
  });
}

/** Return a step with only some windows; each window has a separate request. */
function selectedPart(step, windows) {
  const requests = step.requests.filter((_, index) => windows.includes(step.windows[index]));
  return { ...step, windows, requests };
}

async function request(step, attempted) {
  for (const [index, { path, body }] of step.requests.entries()) {
    const windows = step.action === "backfill" ? step.windows : [step.windows[index]];
    // Before the request, because a lost response does not show whether it arrived.
    for (const window of windows) attempted.add(key(window));
    const { status, error } = await post(path, body);
    if (status === CONFLICT && step.action === "backfill") {
      // Another backfill was created meanwhile, so nothing was created; the next round waits for it.
      for (const window of windows) attempted.delete(key(window));
      return;
    }
    // A DAG run with the same id exists, so the window was requested before.
    if (status === CONFLICT && step.action === "trigger") continue;
    if (!CREATED_STATUSES.has(status)) throw error;
  }
}

async function post(path, body) {
  const response = await call(path, { method: "POST", body: JSON.stringify(body) });
  if (CREATED_STATUSES.has(response.status)) return { status: response.status };
  return { status: response.status, error: await errorOf(response) };
}

/** Return the backfill of a DAG that has not ended, or null; Airflow allows one at a time. */
async function activeBackfill(dagId) {
  const query = new URLSearchParams({ dag_id: dagId, order_by: "-id", limit: "20" });
  const response = await call(`/api/v2/backfills?${query}`, {});
  if (!response.ok) throw await errorOf(response);
  const { backfills } = await response.json();
  return backfills.find(({ completed_at }) => !completed_at) ?? null;
}

async function call(path, options) {
  try {
    return await fetch(AIRFLOW + path, {
      ...options,
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(options.body ? { "Content-Type": "application/json" } : {}) },
    });
  } catch {
    throw new RequestError("Airflow does not respond", "open the preview again: it shows what is still open");
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const detail = typeof body?.detail === "string" ? body.detail : `HTTP status ${response.status}`;
  // Airflow's status for a revoked token is that of a missing permission.
  if (response.status === 401 || detail === "Invalid JWT token") return expiredLogin();
  if (response.status === 403) {
    return new RequestError(`Airflow refused the request: ${detail}`, "ask an administrator for the permission", 403);
  }
  return new RequestError(`Airflow refused the request: ${detail}`, "open the preview again", response.status);
}

export const expiredLogin = () =>
  new RequestError("Your login has expired", "log in to Airflow, then open the preview again", 401);

/** Wait, at most until the signal is aborted. */
export function wait(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

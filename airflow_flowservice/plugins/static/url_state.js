// SPDX-License-Identifier: Apache-2.0
// The user's selection, stored in the fragment (#...) of this page's URL and of Airflow's URL. A reload keeps it.

import { CALENDAR_KEYS } from "./calendar.js";
import { FLEET_KEYS } from "./fleet.js";
import { outerWindow } from "./frame_links.js";

const KEYS = ["flow_id", "dag_id", "from", "to", "states", "zoom", ...CALENDAR_KEYS, ...FLEET_KEYS];

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Return the selection from Airflow's URL, else from this page's fragment, else from this page's query. */
export function readSelection() {
  const query = new URLSearchParams(location.search); // the tab of a DAG passes dag_id in the query
  for (const source of [outerWindow()?.location, location]) {
    const fragment = new URLSearchParams(source?.hash.slice(1) ?? "");
    if (KEYS.some((key) => fragment.has(key))) return selectionFrom(fragment, query);
  }
  return selectionFrom(query, query);
}

export function writeSelection(selection) {
  const fragment = new URLSearchParams();
  for (const key of KEYS) if (selection[key]) fragment.set(key, selection[key]);
  for (const target of [window, outerWindow()]) {
    if (!target) continue;
    // Airflow's page has a <base>, against which a fragment without a path would be resolved.
    const { pathname, search } = target.location;
    target.history.replaceState(target.history.state, "", `${pathname}${search}#${fragment}`);
  }
}

/** Return the id of a dataflow as Adobe writes it: a UUID in lower case. */
function canonicalId(text) {
  const id = text.trim();
  return UUID.test(id) ? id.toLowerCase() : id;
}

/** Return the stored selection. If the query has another DAG, only the filter of states is kept. */
function selectionFrom(stored, query) {
  const selection = Object.fromEntries(KEYS.map((key) => [key, stored.get(key) ?? ""]));
  selection.flow_id = canonicalId(selection.flow_id);
  const dagId = query.get("dag_id");
  if (dagId && dagId !== selection.dag_id) {
    return { ...selection, dag_id: dagId, flow_id: "", from: "", to: "", zoom: "" };
  }
  return selection;
}

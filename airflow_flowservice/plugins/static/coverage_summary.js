// SPDX-License-Identifier: Apache-2.0
// The summary at the top of the page: one sentence that states whether every window is ingested exactly once.

import { el } from "./dom.js";
import { counted, rangeText } from "./formats.js";

const FAULTS = { missing: "missing", failed: "failed", twice: "duplicated" };
const OPEN = { unknown: "with unknown outcome", running: "running" };
const RESTATED = { restated: "restated" };

export function drawSummary(place, response) {
  const faults = phrases(FAULTS, response);
  const open = phrases(OPEN, response);
  const restated = phrases(RESTATED, response);
  const { level, sentence } = result(response, { faults, open });
  place.dataset.level = level;
  place.replaceChildren(
    el("strong", { text: sentence }),
    el("p", { class: "quiet", text: [...nameOf(response), rangeText(response.from, response.to), ...open, ...restated, source(response)].join(" · ") }),
    ...response.notices.map((text) => el("p", { class: "notice", text })),
  );
}

const nameOf = ({ flow_name }) => (flow_name ? [`dataflow ${flow_name}`] : []);

function result({ spans, totals, unplaced }, { faults, open }) {
  if (!spans.start.length) return { level: "empty", sentence: "No windows are expected in this range." };
  if (faults.length) return { level: "bad", sentence: `${faults.join(", ")}.` };
  if (open.length || unplaced.length) {
    return { level: "open", sentence: "No window is known to be missing, failed or duplicated." };
  }
  const isRestated = totals.restated.windows > 0;
  return { level: "good", sentence: `Every window is ingested exactly once${isRestated ? ", or restated" : ""}.` };
}

function source({ service }) {
  if (!service) return "sources: Airflow's tasks and the ledger";
  const runs = counted(service.runs, "flow run");
  return service.whole
    ? `sources: Airflow's tasks, the ledger and ${runs} of Flow Service`
    : `sources: Airflow's tasks, the ledger and the newest ${runs} of Flow Service, which has more`;
}

const phrases = (texts, { totals }) =>
  Object.entries(texts)
    .filter(([state]) => totals[state].windows)
    .map(([state, text]) => `${counted(totals[state].windows, "window")} ${text}`);

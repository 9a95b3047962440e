// SPDX-License-Identifier: Apache-2.0
// The commands that fill the gaps, and the list of flow runs without a known window.

import { copyButton } from "./copy.js";
import { byId, el, show } from "./dom.js";
import { counted } from "./formats.js";
import { RUN_STATUSES } from "./states.js";
import { flowRunElement } from "./window_table.js";

const INITIALLY_SHOWN = 4;

/** Draw the commands and a warning with the succeeded tasks (ids) that the commands would run again. */
export function drawCommands(commands, rerunTasks) {
  byId("rerun-tasks").textContent = rerunTasks.join(", ");
  show(byId("rerun-warning"), rerunTasks.length > 0);
  const showsAll = commands.length <= INITIALLY_SHOWN + 1;
  show(byId("gaps"), commands.length > 0);
  byId("commands").replaceChildren(...commands.slice(0, showsAll ? undefined : INITIALLY_SHOWN).flatMap(commandItems));
  const more = byId("more-commands");
  show(more, !showsAll);
  more.textContent = `Show all ${counted(commands.length, "command")}`;
  more.onclick = () => {
    byId("commands").replaceChildren(...commands.flatMap(commandItems));
    show(more, false);
    byId("commands").children[2 * INITIALLY_SHOWN].querySelector("button").focus();
  };
}

/** Return a command, and the request to Airflow's REST API that does the same. */
const commandItems = ({ command, request }) => [commandItem(command, "command"), commandItem(request, "request")];

const commandItem = (text, kind) => el("li", { class: kind }, el("code", { text }), copyButton(text));

export function drawUnplacedRuns(runs) {
  show(byId("unplaced"), runs.length > 0);
  byId("unplaced-runs").replaceChildren(
    ...runs.map((run) =>
      el(
        "li",
        {},
        flowRunElement(run, { fullId: true }),
        el("span", { class: "quiet", text: ` ${RUN_STATUSES[run.status] ?? run.status}` }),
      ),
    ),
  );
}

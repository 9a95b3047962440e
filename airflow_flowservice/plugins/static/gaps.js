// What fills the gaps, and the flow runs that have no place on the time line.

import { copyButton } from "./copy.js";
import { byId, el, show } from "./dom.js";
import { flowRun } from "./table.js";

export function drawCommands(commands) {
  show(byId("gaps"), commands.length > 0);
  byId("commands").replaceChildren(
    ...commands.map(({ command }) => el("li", {}, el("code", { tabindex: 0, text: command }), copyButton(command))),
  );
}

export function drawUnplaced(runs) {
  show(byId("unplaced"), runs.length > 0);
  byId("unplaced-runs").replaceChildren(
    ...runs.map((run) => el("li", {}, flowRun(run, { whole: true }), el("span", { class: "quiet", text: ` ${run.status}` }))),
  );
}

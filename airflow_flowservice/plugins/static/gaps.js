// What fills the gaps, and the flow runs that have no place on the time line.

import { copyButton } from "./copy.js";
import { byId, el, show } from "./dom.js";
import { flowRun } from "./table.js";
import { counted } from "./times.js";

const AT_FIRST = 4;

/** Commands, and before them the tasks that they would run again although these have succeeded. */
export function drawCommands(commands, again) {
  byId("again-tasks").textContent = again.join(", ");
  show(byId("again"), again.length > 0);
  const few = commands.length <= AT_FIRST + 1;
  show(byId("gaps"), commands.length > 0);
  byId("commands").replaceChildren(...commands.slice(0, few ? undefined : AT_FIRST).map(line));
  const more = byId("more-commands");
  show(more, !few);
  more.textContent = `Show all ${counted(commands.length, "command")}`;
  more.onclick = () => {
    byId("commands").replaceChildren(...commands.map(line));
    show(more, false);
    byId("commands").children[AT_FIRST].querySelector("button").focus();
  };
}

const line = ({ command }) => el("li", {}, el("code", { text: command }), copyButton(command));

export function drawUnplaced(runs) {
  show(byId("unplaced"), runs.length > 0);
  byId("unplaced-runs").replaceChildren(
    ...runs.map((run) => el("li", {}, flowRun(run, { whole: true }), el("span", { class: "quiet", text: ` ${run.status}` }))),
  );
}

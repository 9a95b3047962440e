// The first sentence of the page: is everything in, once?

import { el } from "./dom.js";
import { counted, rangeText } from "./times.js";

const FAULTS = {
  missing: (count) => `${counted(count, "window")} missing`,
  failed: (count) => `${counted(count, "window")} failed`,
  twice: (count) => `${counted(count, "window")} in twice`,
};
const REMARKS = {
  unknown: (count) => `${counted(count, "window")} of which nobody has looked how the flow run ended`,
  running: (count) => `${counted(count, "window")} under way`,
};

export function drawVerdict(place, answer) {
  const faults = phrases(FAULTS, answer);
  const remarks = phrases(REMARKS, answer);
  const nothing = !answer.spans.start.length;
  place.dataset.mood = nothing ? "quiet" : faults.length ? "bad" : remarks.length || answer.unplaced.length ? "open" : "good";
  const sentence = nothing
    ? "Nobody asked for a window in this range."
    : faults.length
      ? `${faults.join(", ")}.`
      : remarks.length || answer.unplaced.length
        ? "Nothing is missing, failed or in twice, as far as is known."
        : "Every window is in, once.";
  place.replaceChildren(
    el("strong", { text: sentence }),
    el("p", { class: "quiet", text: [rangeText(answer.from, answer.to), ...remarks, source(answer)].join(" · ") }),
  );
}

function source({ service }) {
  if (!service) return "as Airflow's tasks know it";
  const runs = counted(service.runs, "flow run");
  return service.whole ? `with ${runs} that Flow Service has` : `with the newest ${runs} that Flow Service has; there are more`;
}

const phrases = (words, { totals }) =>
  Object.entries(words)
    .filter(([state]) => totals[state].windows)
    .map(([state, say]) => say(totals[state].windows));

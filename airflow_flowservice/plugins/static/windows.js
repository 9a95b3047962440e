// The columns of the server's answer as windows.

export function windowsOf(answer) {
  const tasks = objects(answer.tasks);
  const runs = objects(answer.runs);
  const { start, end, state, tasks: asked, runs: held } = answer.spans;
  const windows = start.map((first, index) => ({
    index,
    start: first,
    end: end[index],
    from: Date.parse(first),
    until: Date.parse(end[index]),
    state: answer.states[state[index]],
    tasks: asked[index].map((number) => tasks[number]),
    runs: held[index].map((number) => runs[number]),
  }));
  return { windows, unplaced: answer.unplaced.map((number) => runs[number]) };
}

/** Windows and seconds of each state. */
export function totalsOf(windows) {
  const totals = {};
  for (const { state, from, until } of windows) {
    const total = (totals[state] ??= { windows: 0, seconds: 0 });
    total.windows += 1;
    total.seconds += (until - from) / 1000;
  }
  return totals;
}

/** The sum of a figure over a window's flow runs; null if nobody says it. */
export function sum(runs, name) {
  const known = runs.map((run) => run[name]).filter((value) => typeof value === "number");
  return known.length ? known.reduce((one, other) => one + other, 0) : null;
}

function objects(columns) {
  const names = Object.keys(columns);
  const count = columns[names[0]].length;
  return Array.from({ length: count }, (_, index) => Object.fromEntries(names.map((name) => [name, columns[name][index]])));
}

// SPDX-License-Identifier: Apache-2.0
// Converts the columns of the server's response to windows.

/** Return `{windows, unplaced}`; `unplaced` are the flow runs without a known window. */
export function windowsOf(response) {
  const allTasks = objectsOf(response.tasks);
  const allRuns = objectsOf(response.runs);
  const { start, end, state, tasks, runs, more_tasks: moreTasks, more_runs: moreRuns } = response.spans;
  const windows = start.map((windowStart, index) => ({
    index,
    start: windowStart,
    end: end[index],
    from: Date.parse(windowStart),
    until: Date.parse(end[index]),
    state: response.states[state[index]],
    tasks: tasks[index].map((taskIndex) => allTasks[taskIndex]),
    runs: runs[index].map((runIndex) => allRuns[runIndex]),
    moreTasks: moreTasks[index],
    moreRuns: moreRuns[index],
  }));
  return { windows, unplaced: response.unplaced.map((runIndex) => allRuns[runIndex]) };
}

/** Return the number of windows and the seconds of each state. */
export function totalsOf(windows) {
  const totals = {};
  for (const { state, from, until } of windows) {
    const total = (totals[state] ??= { windows: 0, seconds: 0 });
    total.windows += 1;
    total.seconds += (until - from) / 1000;
  }
  return totals;
}

/** Return the sum of a property over flow runs; null if no flow run has it. */
export function sum(runs, name) {
  const values = runs.map((run) => run[name]).filter((value) => typeof value === "number");
  return values.length ? values.reduce((total, value) => total + value, 0) : null;
}

function objectsOf(columns) {
  const names = Object.keys(columns);
  const count = columns[names[0]].length;
  const objectAt = (index) => Object.fromEntries(names.map((name) => [name, columns[name][index]]));
  return Array.from({ length: count }, (_, index) => objectAt(index));
}

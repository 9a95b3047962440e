// The seven states: colour and pattern are in page.css and page.html under the same names.

export const STATES = {
  ingested: { sign: "✓", word: "Ingested", text: "a flow run that a task made has succeeded" },
  running: { sign: "…", word: "Running", text: "a flow run or its task goes on" },
  failed: { sign: "✕", word: "Failed", text: "the flow run or the task ended as failed" },
  missing: { sign: "–", word: "Missing", text: "asked for, and nothing ingests it" },
  twice: { sign: "2", word: "Twice", text: "more than one flow run has succeeded" },
  outside: { sign: "↗", word: "Outside", text: "ingested by a flow run that none of these tasks made" },
  unknown: { sign: "?", word: "Unknown", text: "there is a flow run, and nobody has looked how it ended" },
};

/** What is painted later is on top where windows are narrower than a pixel. */
export const PAINTED = ["ingested", "outside", "running", "unknown", "twice", "failed", "missing"];

// The page's data. A failure is an error with a text and a remedy, as the server gives them.

export class Failure extends Error {
  constructor(message, remedy, status) {
    super(message);
    this.remedy = remedy ?? "";
    this.status = status;
  }
}

export const readDataflows = () => get("dataflows", {});

export const readCoverage = (choice, signal) => get("coverage", choice, signal);

async function get(name, parameters, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  const address = new URL(`../data/${name}?${new URLSearchParams(given)}`, import.meta.url);
  let answer;
  try {
    answer = await fetch(address, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("Airflow does not answer", "check the network, then try again");
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok && body) return body;
  const message = body?.error ?? `Airflow answered with HTTP status ${answer.status}`;
  throw new Failure(message, body?.remedy ?? "try again; if it stays, look at the API server's log", answer.status);
}

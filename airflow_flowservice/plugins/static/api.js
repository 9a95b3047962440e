// SPDX-License-Identifier: Apache-2.0
// Requests to the page's data endpoints. A failed request throws a RequestError with the server's text and remedy.

export class RequestError extends Error {
  constructor(message, remedy, status) {
    super(message);
    this.remedy = remedy ?? "";
    this.status = status;
  }
}

export const readDataflows = () => get("dataflows", {});

export const readFleet = (signal) => get("fleet", {}, signal);

export const readCoverage = (parameters, signal) => get("coverage", parameters, signal);

export const readFill = (parameters, signal) => get("fill", parameters, signal);

async function get(name, parameters, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value);
  const url = new URL(`../data/${name}?${new URLSearchParams(given)}`, import.meta.url);
  let response;
  try {
    response = await fetch(url, { signal, headers: { Accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestError("Airflow does not respond", "check the network, then try again");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  const message = body?.error ?? `Airflow responded with HTTP status ${response.status}`;
  const remedy = body?.remedy ?? "try again; if the error persists, look at the API server's log";
  throw new RequestError(message, remedy, response.status);
}

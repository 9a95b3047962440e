// What the user has chosen, kept behind the # of the address, also of Airflow's own, so that a reload keeps it.

import { outer } from "./frame.js";

const KEYS = ["flow_id", "dag_id", "from", "to", "states", "zoom"];

/** The choice in the addresses: the outer page's first, else this page's, else its query (a DAG's page gives it). */
export function readChoice() {
  const query = new URLSearchParams(location.search);
  for (const place of [outer()?.location, location]) {
    const kept = new URLSearchParams(place?.hash.slice(1) ?? "");
    if (kept.has("flow_id")) return values(kept, query);
  }
  return values(query, query);
}

export function writeChoice(choice) {
  const hash = new URLSearchParams();
  for (const key of KEYS) if (choice[key]) hash.set(key, choice[key]);
  for (const place of [window, outer()]) {
    if (!place) continue;
    const { pathname, search } = place.location; // Airflow's page has a base, to which a # alone would be added
    place.history.replaceState(place.history.state, "", `${pathname}${search}#${hash}`);
  }
}

/** Of another DAG's page is only kept what is not about that DAG. */
function values(kept, query) {
  const choice = Object.fromEntries(KEYS.map((key) => [key, kept.get(key) ?? ""]));
  const given = query.get("dag_id");
  if (given && given !== choice.dag_id) return { ...choice, dag_id: given, flow_id: "", from: "", to: "", zoom: "" };
  return choice;
}

// Moments as text. The contract has ISO 8601 in UTC; local time stands in titles.

const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const COUNT = new Intl.NumberFormat("en");

/** `2026-01-31 06:00`, with seconds only if there are some. */
export const utcText = (moment) =>
  (typeof moment === "string" ? moment : new Date(moment).toISOString()).slice(0, 19).replace("T", " ").replace(/:00$/, "");

/** `2026-01-01 00:00 to 2026-01-31 06:00`, to the minute. */
export const rangeText = (from, until) => [from, until].map((edge) => utcText(edge).slice(0, 16)).join(" to ");

export const localText = (moment) => `${LOCAL.format(new Date(moment))} (your local time)`;

export const dateText = (moment) => new Date(moment).toISOString().slice(0, 10);

export const isoText = (moment) => new Date(moment).toISOString().replace(".000Z", "Z");

export const countText = (count) => COUNT.format(count);

/** `36 h`, or minutes where there is no hour. */
export function lengthText(seconds) {
  if (seconds < 3600) return `${COUNT.format(Math.round(seconds / 60))} min`;
  return `${COUNT.format(Math.round(seconds / 360) / 10)} h`;
}

/** `1 window`, `2 windows`. */
export const counted = (count, noun) => `${COUNT.format(count)} ${noun}${count === 1 ? "" : "s"}`;

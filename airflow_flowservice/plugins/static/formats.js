// SPDX-License-Identifier: Apache-2.0
// Times, durations and counts as text. Times are ISO 8601 in UTC; tooltips show the local time.

const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
const COUNT = new Intl.NumberFormat("en");

/** Return `2026-01-31 06:00`, with seconds only if they are not zero. */
export const utcText = (time) =>
  (typeof time === "string" ? time : new Date(time).toISOString()).slice(0, 19).replace("T", " ").replace(/:00$/, "");

/** Return `2026-01-01 00:00 to 2026-01-31 06:00`, in minutes. */
export const rangeText = (from, until) => [from, until].map((edge) => utcText(edge).slice(0, 16)).join(" to ");

export const localText = (time) => `${LOCAL.format(new Date(time))} (your local time)`;

export const dateText = (time) => new Date(time).toISOString().slice(0, 10);

export const isoText = (time) => new Date(time).toISOString().replace(".000Z", "Z");

export const countText = (count) => COUNT.format(count);

/** Return `36 h`, or minutes if the duration is shorter than an hour. */
export function durationText(seconds) {
  if (seconds < 3600) return `${COUNT.format(Math.round(seconds / 60))} min`;
  return `${COUNT.format(Math.round(seconds / 360) / 10)} h`;
}

/** Return `1 window`, `2 windows`. */
export const counted = (count, noun) => `${COUNT.format(count)} ${noun}${count === 1 ? "" : "s"}`;

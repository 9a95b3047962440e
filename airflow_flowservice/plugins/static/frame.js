// Leaving the page: Airflow shows it in a sandboxed frame, in which plain links stay inside and others are blocked.

/** Airflow's address, without a slash at the end; this file lies two folders below it. */
export const AIRFLOW = new URL("../..", import.meta.url).href.replace(/\/$/, "");

/** The page around this one, if it is Airflow's. */
export function outer() {
  try {
    return parent !== window && parent.document ? parent : null;
  } catch {
    return null;
  }
}

/** A link to a page of Airflow's own, which opens in place of the page around this one. */
export function leadToAirflow(anchor, path) {
  anchor.href = AIRFLOW + path;
  anchor.addEventListener("click", (event) => {
    if (!outer()) return;
    event.preventDefault();
    if (event.metaKey || event.ctrlKey || event.shiftKey) openTab(anchor.href);
    else replaceOuter(anchor.href);
  });
  return anchor;
}

/** A link to another site, in a new tab. */
export function leadOutside(anchor, address) {
  anchor.href = address;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer";
  anchor.addEventListener("click", (event) => {
    if (!outer()) return;
    event.preventDefault();
    openTab(anchor.href);
  });
  return anchor;
}

/** The address if it is one that may be followed: https, or this machine's; else null. */
export function safeAddress(text) {
  try {
    const url = new URL(text);
    const loopback = url.protocol === "http:" && url.hostname === "127.0.0.1";
    return url.protocol === "https:" || loopback ? url.href : null;
  } catch {
    return null;
  }
}

function openTab(address) {
  const tab = parent.open(address, "_blank");
  if (tab) tab.opener = null;
}

function replaceOuter(address) {
  const anchor = parent.document.createElement("a");
  anchor.href = address;
  parent.document.body.append(anchor);
  anchor.click();
  anchor.remove();
}

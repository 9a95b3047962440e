// SPDX-License-Identifier: Apache-2.0
// Links that leave the page. Airflow shows the page in a sandboxed frame, in which plain links open or are blocked.

/** Airflow's URL without a slash at the end; this file is two folders below it. */
export const AIRFLOW = new URL("../..", import.meta.url).href.replace(/\/$/, "");

/** Return Airflow's window if this page is in its frame, else null. */
export function outerWindow() {
  try {
    return parent !== window && parent.document ? parent : null;
  } catch {
    return null;
  }
}

/** Make an anchor link to a page of Airflow; the page opens in Airflow's window, not in the frame. */
export function linkToAirflow(anchor, path) {
  anchor.href = AIRFLOW + path;
  anchor.addEventListener("click", (event) => {
    if (!outerWindow()) return;
    event.preventDefault();
    if (event.metaKey || event.ctrlKey || event.shiftKey) openTab(anchor.href);
    else openInOuterWindow(anchor.href);
  });
  return anchor;
}

/** Make an anchor link to another site; the site opens in a new tab. */
export function linkToOtherSite(anchor, url) {
  anchor.href = url;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer";
  anchor.addEventListener("click", (event) => {
    if (!outerWindow()) return;
    event.preventDefault();
    openTab(anchor.href);
  });
  return anchor;
}

/** Return the URL if it is safe to link to (https, or http on 127.0.0.1), else null. */
export function safeUrl(text) {
  try {
    const url = new URL(text);
    const isLoopback = url.protocol === "http:" && url.hostname === "127.0.0.1";
    return url.protocol === "https:" || isLoopback ? url.href : null;
  } catch {
    return null;
  }
}

function openTab(url) {
  const tab = parent.open(url, "_blank");
  if (tab) tab.opener = null;
}

function openInOuterWindow(url) {
  const anchor = parent.document.createElement("a");
  anchor.href = url;
  parent.document.body.append(anchor);
  anchor.click();
  anchor.remove();
}

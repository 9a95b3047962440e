// SPDX-License-Identifier: Apache-2.0
// A button that copies text. Without https, browsers have no clipboard API, so the deprecated command is the fallback.

import { el } from "./dom.js";

const RESET_MS = 2000;

export function copyButton(text) {
  const button = el("button", { type: "button", class: "copy", text: "Copy", "aria-label": `Copy ${text}` });
  button.addEventListener("click", async () => {
    const copied = (await copyByClipboardApi(text)) || copyByCommand(text, button);
    button.textContent = copied ? "Copied" : "Select and copy manually";
    setTimeout(() => (button.textContent = "Copy"), RESET_MS);
  });
  return button;
}

async function copyByClipboardApi(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function copyByCommand(text, button) {
  const area = el("textarea", { class: "hidden", readonly: true });
  area.value = text;
  button.after(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  button.focus();
  return copied;
}

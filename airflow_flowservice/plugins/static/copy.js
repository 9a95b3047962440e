// A button that copies. Without https there is no clipboard in a browser but the old command.

import { el } from "./dom.js";

export function copyButton(text) {
  const button = el("button", { type: "button", class: "copy", text: "Copy", "aria-label": `Copy ${text}` });
  button.addEventListener("click", async () => {
    const done = (await byClipboard(text)) || byCommand(text, button);
    button.textContent = done ? "Copied" : "Select and copy by hand";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return button;
}

async function byClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

function byCommand(text, button) {
  const area = el("textarea", { class: "hidden", readonly: true });
  area.value = text;
  button.after(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  button.focus();
  return done;
}

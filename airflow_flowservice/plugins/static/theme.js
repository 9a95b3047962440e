// Light or dark, as Airflow is: its page's class, else what was chosen there, else what the system prefers; on its ground.
// Not a module, so that it runs before anything is painted.
(function () {
  "use strict";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function outer() {
    try {
      return parent !== window ? parent.document.documentElement : null;
    } catch {
      return null; // another site's frame
    }
  }

  function chosen() {
    const classes = outer()?.classList;
    for (const theme of ["dark", "light"]) if (classes?.contains(theme)) return theme;
    const stored = localStorage.getItem("theme");
    if (stored === "dark" || stored === "light") return stored;
    return system.matches ? "dark" : "light";
  }

  function apply() {
    root.dataset.theme = chosen();
    const page = outer();
    const ground = page ? getComputedStyle(page.ownerDocument.body).backgroundColor : "transparent";
    if (/^rgb\(/.test(ground)) root.style.setProperty("--page", ground);
    else root.style.removeProperty("--page"); // it has none of its own
  }

  apply();
  system.addEventListener("change", apply);
  addEventListener("storage", apply);
  const page = outer();
  if (page) new MutationObserver(apply).observe(page, { attributes: true, attributeFilter: ["class"] });
})();

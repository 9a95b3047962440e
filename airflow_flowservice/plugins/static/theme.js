// SPDX-License-Identifier: Apache-2.0
// Light or dark theme and background colour of Airflow. The theme is the class of Airflow's page, else the theme
// stored by Airflow, else the system's preference.
// This script is not a module, so that it runs before the first paint.
(function () {
  "use strict";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function outerRoot() {
    try {
      return parent !== window ? parent.document.documentElement : null;
    } catch {
      return null; // the frame belongs to another site
    }
  }

  function currentTheme() {
    const classes = outerRoot()?.classList;
    for (const theme of ["dark", "light"]) if (classes?.contains(theme)) return theme;
    const stored = localStorage.getItem("theme");
    if (stored === "dark" || stored === "light") return stored;
    return system.matches ? "dark" : "light";
  }

  function applyTheme() {
    root.dataset.theme = currentTheme();
    const page = outerRoot();
    const background = page ? getComputedStyle(page.ownerDocument.body).backgroundColor : "transparent";
    if (/^rgb\(/.test(background)) root.style.setProperty("--page", background);
    else root.style.removeProperty("--page"); // Airflow's page sets no background
  }

  applyTheme();
  system.addEventListener("change", applyTheme);
  addEventListener("storage", applyTheme);
  const page = outerRoot();
  if (page) new MutationObserver(applyTheme).observe(page, { attributes: true, attributeFilter: ["class"] });
})();

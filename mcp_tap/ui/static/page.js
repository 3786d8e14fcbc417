// @ts-check
/**
 * Every page starts here: times in the reader's zone, durations that tick, the theme; the rest is in modules that do
 * nothing on a page that has nothing for them.
 */
import "./charts.js";
import "./copy.js";
import "./expand.js";
import "./json-view.js";
import "./keys.js";
import "./live.js";
import "./panel.js";
import "./waterfall.js";
import { all, announce, duration, local } from "./words.js";

/** What only works with a script was hidden until now, and what stands for it without one is not needed. */
for (const button of all("button[hidden]:is([data-copy], [data-help], [data-pause], [data-follow])")) button.hidden = false;
for (const link of all("[data-refresh]")) link.hidden = true;

/** Whether the reader is elsewhere than the server, whose zone the times were written in. */
const ELSEWHERE = Number(document.documentElement.dataset.zone) !== -new Date().getTimezoneOffset();

/** @param {ParentNode} [within] */
function showTimes(within = document) {
  for (const element of all("time[datetime]", within)) {
    if (ELSEWHERE || element.dataset.form === "relative") {
      element.textContent = local(element.getAttribute("datetime") ?? "", element.dataset.form);
    }
  }
}

/** How long what goes on takes so far, and how long ago things were. */
function tick() {
  if (document.hidden) return;
  for (const element of all("[data-ticking]")) {
    const began = Date.parse(element.dataset.ticking ?? "");
    const seconds = Math.max(1, Math.floor((Date.now() - began) / 1000));
    if (began) element.textContent = duration(seconds * 1000).replace(".00", "");
  }
  for (const element of all("time[data-form=relative]")) {
    element.textContent = local(element.getAttribute("datetime") ?? "", "relative");
  }
}

/** The cookie has the server render the theme at once, so that nothing flashes. */
function turnTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = dark ? "light" : "dark";
  root.dataset.theme = theme;
  document.cookie = `theme=${theme}; path=/; max-age=31536000; samesite=strict`;
  announce(`${theme} colours`);
  for (const link of all("[data-theme-switch]")) {
    link.setAttribute("aria-label", `Turn to ${dark ? "dark" : "light"} colours`);
  }
}

document.addEventListener("click", (event) => {
  if (!(event.target instanceof Element) || !event.target.closest("[data-theme-switch]")) return;
  event.preventDefault();
  turnTheme();
});

// a menu closes as menus do
document.addEventListener("click", (event) => {
  for (const menu of all("details.menu[open]")) {
    if (event.target instanceof Node && !menu.contains(event.target)) menu.removeAttribute("open");
  }
});
document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" ? all("details.menu[open]")[0] : undefined;
  if (!menu) return;
  menu.removeAttribute("open");
  menu.querySelector("summary")?.focus();
  event.preventDefault(); // of two things that are open only one closes
});

document.addEventListener("rows-shown", (event) => showTimes(event.target instanceof Element ? event.target : document));

showTimes();
tick();
setInterval(tick, 1000);

// @ts-check
/**
 * Keys. Single letters never fire inside inputs or with modifiers, and a switch in the help dialog turns them off
 * (WCAG 2.1.4 Character Key Shortcuts).
 */
import { all, announce, one } from "./words.js";

const OFF = "mcp-tap-keys-off";

/** Seconds that `g` waits for the letter of a place. */
const CHORD_S = 1.5;

/** A key does what a click on the first of these that is visible does. */
const CLICKS = new Map(Object.entries({
  "[": "[data-key='[']",
  "]": "[data-key=']']",
  p: "[data-pause]",
  " ": "[data-pause]",
  f: "[data-follow]",
  y: "#panel [data-copy=curl], main [data-copy=curl]",
  Y: "#panel [data-copy=json], main [data-copy=json]",
  ".": "[data-menu=range] > summary",
  0: "[data-zoom=fit]",
  "+": "[data-zoom=in]",
  "=": "[data-zoom=in]",
  "-": "[data-zoom=out]",
}));

/** @returns {HTMLElement[]} */
const rows = () => all("tr[data-row]").filter((row) => row.getClientRects().length > 0);

/** @returns {HTMLElement | undefined} the row that the reader is at */
function current() {
  const focused = document.activeElement?.closest("tr[data-row]");
  return focused instanceof HTMLElement ? focused : all("tr[data-row].at, tr[data-row][aria-selected=true]")[0];
}

/** @param {HTMLElement | undefined} row */
function goTo(row) {
  if (!row) return;
  for (const other of all("tr.at")) other.classList.remove("at");
  row.classList.add("at");
  const link = one("a[href]", row) ?? one("button", row) ?? row;
  if (link === row) row.tabIndex = -1;
  link.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

/** @param {number} by @param {(row: HTMLElement) => boolean} [wanted] */
function step(by, wanted = () => true) {
  const list = rows();
  const at = current();
  let index = at ? list.indexOf(at) : by > 0 ? -1 : list.length;
  do index += by;
  while (list[index] && !wanted(/** @type {HTMLElement} */ (list[index])));
  if (list[index]) goTo(list[index]);
  else if (list.length) announce(by > 0 ? "no further row" : "no row before");
  // an open panel goes along
  if (list[index] && one("[data-panel]:not([hidden])")) list[index].dispatchEvent(new CustomEvent("row-open", { bubbles: true }));
}

/** @param {HTMLElement} row */
const failed = (row) => row.dataset.status === "failed" || "failed" in row.dataset;

function up() {
  const up = one("[data-up]") ?? all(".crumb a").at(-1);
  if (up) up.click();
}

/** @param {KeyboardEvent} event @returns {boolean} whether the key meant something */
function press(event) {
  const row = current();
  switch (event.key) {
    case "?":
      help();
      return true;
    case "/": {
      const box = one("[data-filter]");
      if (box instanceof HTMLInputElement) box.focus(), box.select();
      return Boolean(box);
    }
    case "j":
    case "k":
      step(event.key === "j" ? 1 : -1);
      return true;
    case "n":
    case "N":
      step(event.key === "n" ? 1 : -1, failed);
      return true;
    case "ArrowLeft":
    case "ArrowRight":
      if (!one("[data-panel]:not([hidden])")) return false;
      step(event.key === "ArrowRight" ? 1 : -1);
      return true;
    case "Enter":
      // a focused link or button does what it does; Enter on a row does what its link does
      if (!row || document.activeElement?.closest("a, button, summary")) return false;
      one("a[href]", row)?.click();
      return true;
    case "x":
      if (row) one("[data-expand]", row)?.click();
      return Boolean(row);
    case "u":
      up();
      return true;
    default: {
      const target = all(CLICKS.get(event.key) ?? "no-such-element").find((element) => element.getClientRects().length);
      if (!target) return false;
      target.click();
      return true;
    }
  }
}

// --------------------------------------------------------------------------------------------------- the keyboard

let chord = 0;

/** @param {EventTarget | null} target */
const typing = (target) =>
  target instanceof Element && Boolean(target.closest("input, textarea, select, [contenteditable], [role=tree]"));

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape") {
    if (event.target instanceof HTMLElement && typing(event.target)) event.target.blur();
    return; // dialogs close themselves, the panel listens on its own
  }
  if (typing(event.target) || one("dialog[open]") || localStorage.getItem(OFF)) return;
  // a button under the focus is pressed by space, and a fold by Enter
  if (event.key === " " && event.target instanceof Element && event.target.closest("button, a, summary")) return;
  const now = performance.now();
  const place = now < chord ? all("nav [data-key]").find((link) => link.dataset.key === `g ${event.key}`) : undefined;
  chord = 0;
  if (place) place.click();
  else if (event.key === "g") chord = now + CHORD_S * 1000;
  else if (!press(event)) return;
  event.preventDefault();
});

// ----------------------------------------------------------------------------------------------------------- help

function help() {
  const dialog = one("dialog[data-help-dialog]");
  if (!(dialog instanceof HTMLDialogElement) || dialog.open) return;
  const choice = one("[data-keys-switch]", dialog);
  if (choice instanceof HTMLInputElement) choice.checked = !localStorage.getItem(OFF);
  dialog.showModal();
}

document.addEventListener("click", (event) => {
  if (!(event.target instanceof Element)) return;
  if (event.target.closest("[data-help]")) {
    event.preventDefault();
    help();
  }
  if (event.target.closest("[data-close]")) event.target.closest("dialog")?.close();
});

document.addEventListener("change", (event) => {
  if (!(event.target instanceof HTMLInputElement) || !event.target.matches("[data-keys-switch]")) return;
  if (event.target.checked) localStorage.removeItem(OFF);
  else localStorage.setItem(OFF, "1");
  announce(event.target.checked ? "single-key shortcuts are on" : "single-key shortcuts are off");
});

// @ts-check
/**
 * Copying. What is copied was made on the server and stands in the page; `data-copy-from` names where.
 */
import { announce, one } from "./words.js";

const SHOWN_MS = 1600;

/**
 * Put a text on the clipboard and say so, in the button too.
 * @param {string} text @param {HTMLElement} [button]
 */
export async function copyText(text, button) {
  const done = (await viaClipboard(text)) || viaSelection(text);
  const said = done ? "copied" : "could not copy";
  announce(button?.dataset.copy ? `${said} ${button.dataset.copy}` : said);
  if (!button || button.dataset.was) return;
  const { textContent: was } = button;
  button.dataset.was = was ?? "";
  button.textContent = said;
  setTimeout(() => {
    button.textContent = was;
    delete button.dataset.was;
  }, SHOWN_MS);
}

/** @param {string} text */
async function viaClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // no such thing on a page that came over plain HTTP from another machine, or not allowed
  }
}

/** @param {string} text */
function viaSelection(text) {
  const area = document.createElement("textarea");
  const focused = document.activeElement;
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return done;
}

/** @param {HTMLElement} button @returns {string} */
function wanted(button) {
  const source = button.dataset.copyFrom ? one(button.dataset.copyFrom) : null;
  if (source instanceof HTMLTextAreaElement || source instanceof HTMLInputElement) return source.value;
  if (source) return source.textContent ?? "";
  if (button.dataset.copy === "link") return new URL(button.dataset.copyLink ?? "", location.href).href;
  return button.dataset.copyText ?? "";
}

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
  if (!(button instanceof HTMLElement)) return;
  event.preventDefault();
  void copyText(wanted(button), button);
});

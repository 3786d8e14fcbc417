// @ts-check
/** Expansion in place: the first events of a session below its row. Without a script the same link loads the page. */
import { fillLine } from "./rows.js";
import { all, announce, one } from "./words.js";

/** Events that are shown in place; the session's own page has all of them. */
const LINES = 50;

/** @param {string} selector @returns {HTMLElement | null} */
function cloned(selector) {
  const template = document.querySelector(selector);
  const part = template instanceof HTMLTemplateElement ? template.content.cloneNode(true) : null;
  return part instanceof DocumentFragment ? one("tr", part) : null;
}

/** @param {HTMLElement} link @param {HTMLElement} row */
async function expand(link, row) {
  const id = row.dataset.id ?? "";
  const below = cloned("#expansion-template");
  if (!below) return;
  const answer = await fetch(`/api/connections/${encodeURIComponent(id)}/events?limit=${LINES}&order=asc`);
  if (!answer.ok || link.getAttribute("aria-expanded") === "true") return;
  const { items, pagination } = await answer.json();
  const body = one("tbody", below);
  for (const event of items) {
    const line = cloned("#line-template");
    if (line) body?.append(line), fillLine(line, event);
  }
  const more = one("[data-field=more]", below);
  if (more) {
    more.setAttribute("href", row.dataset.href ?? "");
    if (pagination?.has_more_after) more.textContent = `the first ${items.length} events; open the session`;
  }
  below.id = link.getAttribute("aria-controls") ?? "";
  row.after(below);
  mark(link, true);
  announce(`${items.length} events below`);
  below.dispatchEvent(new Event("rows-shown", { bubbles: true }));
}

/** @param {HTMLElement} link @param {boolean} open */
function mark(link, open) {
  link.setAttribute("aria-expanded", String(open));
  link.textContent = open ? "▾" : "▸";
}

document.addEventListener("click", (event) => {
  if (!(event.target instanceof Element) || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("[data-expand]");
  const row = link?.closest("tr[data-row]");
  if (!(link instanceof HTMLElement) || !(row instanceof HTMLElement)) return;
  event.preventDefault();
  const below = all("tr.expanded").find((other) => other.previousElementSibling === row);
  if (!below) return void expand(link, row);
  below.remove();
  mark(link, false);
});

// @ts-check
/**
 * The panel beside a timeline, without loading the page again: the timeline, its zoom and its place stay.
 *
 * A row's link leads to the same page with the panel in it, so that links, reloads and browsers without scripts have
 * it, too. Here the panel of that page is fetched alone and moved over. The answer becomes a document of its own that nothing
 * runs in, made from the server's escaped templates, exactly as if the link had been followed.
 */
import { showJson } from "./json-view.js";
import { all, announce, one } from "./words.js";

/** @param {string} url @returns {Promise<Document | null>} a page of ours; null where there is none */
export function pageAt(url) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", url);
    request.responseType = "document";
    request.addEventListener("loadend", () => resolve(request.status === 200 ? request.responseXML : null));
    request.send();
  });
}

const panel = () => one("[data-panel]");

/** Answers come in any order; only the last question counts. */
let asked = 0;

/** @param {string} url @param {"push" | "replace" | "stay"} history */
async function show(url, history) {
  const number = ++asked;
  const alone = new URL(url, location.href);
  alone.searchParams.set("panel", "1");
  const page = await pageAt(alone.href);
  if (number !== asked) return;
  if (!page || !page.body.dataset.page) return void location.assign(url);
  if (history === "push") window.history.pushState(null, "", url);
  else if (history === "replace") window.history.replaceState(null, "", url);
  document.title = page.title;
  const next = one("[data-panel]:not([hidden])", page);
  // a session of several connections has the panel beside the one that it is of
  const section = next?.closest("section")?.id;
  const place = one(section ? `#${CSS.escape(section)} > .split` : ".split");
  panel()?.remove();
  if (next && place) {
    const moved = document.adoptNode(next);
    place.append(moved);
    for (const button of all("[data-copy][hidden]", moved)) button.hidden = false;
    showJson(moved);
    moved.dispatchEvent(new Event("rows-shown", { bubbles: true }));
    moved.scrollTop = 0;
    announce(one("h2", moved)?.textContent ?? "");
  }
  const open = alone.searchParams.get("event");
  for (const row of all("tr[data-row]")) {
    const at = Boolean(next) && open !== null && [row.dataset.event, row.dataset.id].includes(open);
    if (at) row.setAttribute("aria-selected", "true");
    else row.removeAttribute("aria-selected");
    row.classList.toggle("at", at);
  }
}

/** @param {HTMLElement} row @returns {HTMLAnchorElement | null} */
function linkOf(row) {
  const link = row.querySelector("a[href*='event=']");
  return link instanceof HTMLAnchorElement ? link : null;
}

/** Close it and give the focus back to its row. @returns {boolean} whether it was open */
function close() {
  const open = all("tr[data-row][aria-selected=true]")[0];
  const link = one("[data-panel] a[data-close]");
  if (!(link instanceof HTMLAnchorElement)) return false;
  void show(link.href, "push");
  panel()?.remove();
  if (open) one("a[href]", open)?.focus({ preventScroll: true });
  return true;
}

document.addEventListener("click", (event) => {
  if (!(event.target instanceof Element) || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return;
  if (event.target.closest("[data-panel] a[data-close]")) {
    if (close()) event.preventDefault();
    return;
  }
  const tab = event.target.closest("[data-panel] .tabs a");
  if (tab instanceof HTMLAnchorElement) {
    event.preventDefault();
    return void show(tab.href, "replace");
  }
  const row = event.target.closest("tr[data-row]");
  if (!(row instanceof HTMLElement) || document.getSelection()?.toString()) return;
  const inside = event.target.closest("a, button, input, summary");
  const link = linkOf(row);
  if (link && (!inside || inside === link)) {
    event.preventDefault();
    void show(link.href, "push");
    if (!inside) link.focus({ preventScroll: true });
  } else if (!inside && row.dataset.href) location.assign(row.dataset.href);
});

document.addEventListener("row-open", (event) => {
  const link = event.target instanceof HTMLElement ? linkOf(event.target) : null;
  if (link) void show(link.href, "replace");
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented && panel() && !one("dialog[open]") && close()) event.preventDefault();
});

addEventListener("popstate", () => {
  if (document.body.dataset.page === "session") void show(location.href, "stay");
});

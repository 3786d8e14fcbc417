// @ts-check
/**
 * Live pages. One stream for a page that is seen: rows that are there change in place, so that a pending call turns
 * into its outcome; what is new is counted in a pill and shown when the reader asks, and only the Live page grows by
 * itself, at its end. A stream that was cut goes on after the last change it told: nothing is missed.
 */
import { pageAt } from "./panel.js";
import { fillEvent, fillSession } from "./rows.js";
import { all, announce, counted, make, one } from "./words.js";

/** Rows that the Live page keeps. */
const KEPT = 2000;

/** Seconds until the next attempt after a stream was cut; the last one for all further ones. */
const PATIENCE = [1, 2, 3, 5, 10];

/** Seconds between two sentences in the live region. */
const SILENCE_S = 5;

/** Milliseconds without a change until the pictures of a session are drawn again. */
const REDRAW_MS = 400;

/** Pixels from the end of the page that still count as its end. */
const AT_END = 80;

/** @typedef {Record<string, any>} Resource an object of the API */

class Stream {
  /** @param {string} url @param {number} change the number of the last change that the page shows */
  constructor(url, change) {
    this.url = url;
    this.change = change;
    /** @type {EventSource | null} */
    this.source = null;
    this.failures = 0;
    this.timer = 0;
    /** @type {(resources: Resource[]) => void} */
    this.told = () => {};
    /** @type {(count: number) => void} */
    this.passedOver = () => {};
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    // a page that comes back from the browser's memory, and one that leaves
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (event) => event.persisted && this.open());
    addEventListener("online", () => (this.close(), this.open()));
    if (!document.hidden) this.open();
  }

  open() {
    if (this.source) return;
    clearTimeout(this.timer);
    const url = new URL(this.url, location.href);
    url.searchParams.set("change", String(this.change));
    const source = new EventSource(url);
    this.source = source;
    source.addEventListener("open", () => {
      this.failures = 0;
      state("live");
    });
    source.addEventListener("error", () => {
      this.close();
      this.wait(PATIENCE[Math.min(this.failures++, PATIENCE.length - 1)] ?? 1);
    });
    for (const kind of ["event", "connection", "skipped", "status"]) source.addEventListener(kind, (event) => this.read(event));
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  /** @param {number} seconds */
  wait(seconds) {
    state(`reconnecting… ${seconds} s`);
    this.timer = window.setTimeout(() => (seconds > 1 ? this.wait(seconds - 1) : this.open()), 1000);
  }

  /** @param {MessageEvent} event */
  read(event) {
    this.change = Math.max(this.change, Number(event.lastEventId) || 0);
    const said = JSON.parse(event.data);
    if (event.type === "status") recording(said);
    else if (event.type === "skipped") this.passedOver(said.count);
    else this.told([said]);
  }
}

/** Say how the stream is. @param {string} words */
function state(words) {
  const cut = words !== "live";
  document.body.dataset.stream = cut ? "cut" : "open";
  let place = one("[data-live-state]");
  if (!place && cut) {
    place = make("span", { class: "amber", "data-live-state": "" });
    one("[data-recording]")?.after(" ", place);
  }
  if (place) place.textContent = cut || document.body.dataset.page === "live" ? words : "";
}

/** Say how recording goes, in the line on top. @param {{failing: string | null, lost: number, dropped: number}} status */
function recording({ failing, lost, dropped }) {
  const line = one("[data-recording]");
  if (line) {
    line.className = failing ? "amber" : "rec";
    const words = `▲ traffic flows, but records cannot be written: ${failing} — ${lost ? lost.toLocaleString("en") : "none"} lost so far`;
    line.textContent = failing ? words : "● recording";
  }
  for (const count of all("[data-dropped]")) {
    count.className = dropped ? "amber" : "";
    count.textContent = dropped ? `▲ ${dropped.toLocaleString("en")} dropped` : "0 dropped";
  }
}

class Voice {
  constructor() {
    this.events = 0;
    this.errors = 0;
    this.timer = 0;
  }

  /** @param {number} events @param {number} errors */
  say(events, errors) {
    this.events += events;
    this.errors += errors;
    if (this.timer || !this.events) return;
    this.timer = window.setTimeout(() => {
      announce(counted(this.events, "new event") + (this.errors ? `, ${counted(this.errors, "error")}` : ""));
      this.events = this.errors = this.timer = 0;
    }, SILENCE_S * 1000);
  }
}

class Rows {
  constructor() {
    this.page = document.body.dataset.page ?? "";
    this.grows = this.page === "live";
    this.body = one("table[data-live-rows] tbody, table[data-rows] tbody, table[data-table] tbody");
    this.template = document.querySelector("template#row-template");
    this.pill = one("[data-pill]");
    this.count = one("[data-count]");
    /** @type {Set<string>} ids behind the pill */
    this.news = new Set();
    /** @type {Map<string, Resource>} what came while the page was paused */
    this.held = new Map();
    this.skipped = 0;
    this.redrawing = 0;
    this.paused = false;
    this.follows = true;
    this.voice = new Voice();
    this.pill?.addEventListener("click", () => this.showNews());
    for (const button of all("[data-pause]")) button.addEventListener("click", () => this.pause());
    for (const button of all("[data-follow]")) button.addEventListener("click", () => this.follow(true));
    if (this.grows) {
      addEventListener("scroll", () => this.follow(atEnd(), false), { passive: true });
      this.follow(true);
    }
  }

  /** @param {Resource[]} resources */
  apply(resources) {
    if (one("[data-test=nothing-recorded]")) return location.reload(); // now something is
    const bottom = this.follows;
    let fresh = 0;
    let errors = 0;
    for (const resource of resources) {
      if (resource.object === "session.connection" && this.page === "session") this.redraw();
      if (this.paused) {
        if (resource.object !== "session.connection") this.held.set(resource.id, resource);
        continue;
      }
      const row = this.find(resource);
      if (row) this.update(row, resource);
      else if (this.wants(resource)) {
        fresh += 1;
        if (resource.status === "failed") errors += 1;
        if (this.grows) this.append(resource);
        else this.news.add(resource.id);
      }
    }
    this.voice.say(fresh, errors);
    this.tell();
    if (this.grows && bottom && !this.paused) this.toEnd();
  }

  /** @param {Resource} resource @returns {HTMLElement | null} */
  find(resource) {
    const ids = [resource.id, resource.message_id].filter(Boolean);
    return one(ids.map((id) => `tr[data-id="${CSS.escape(id)}"]`).join(", "));
  }

  /** Whether a row of this page is made of such a thing. @param {Resource} resource */
  wants(resource) {
    return (resource.object === "session.connection") === (this.page === "sessions");
  }

  /** @param {HTMLElement} row @param {Resource} resource */
  update(row, resource) {
    if (resource.change < Number(row.dataset.change ?? 0)) return;
    row.dataset.change = String(resource.change);
    if (resource.object === "session.connection") fillSession(row, resource);
    else fillEvent(row, resource);
    row.dispatchEvent(new Event("rows-shown", { bubbles: true }));
    if (this.page === "session") this.redraw();
  }

  /** Pictures are the server's: what changed is fetched with the page and put in the place of what was. */
  redraw() {
    clearTimeout(this.redrawing);
    this.redrawing = window.setTimeout(async () => {
      const page = await pageAt(location.href);
      if (!page) return;
      for (const cell of all("tr[data-row] .wfcell")) {
        const id = cell.closest("tr")?.id;
        const next = id ? one(`#${CSS.escape(id)} .wfcell`, page) : null;
        if (next) cell.replaceChildren(...next.childNodes);
      }
      for (const [selector, inside] of [["svg[data-minimap]", all("svg[data-minimap]", page)], ["dl.facts", all("dl.facts", page)]]) {
        all(/** @type {string} */ (selector)).forEach((now, index) => {
          const next = /** @type {HTMLElement[]} */ (inside)[index];
          if (next) now.replaceWith(document.adoptNode(next));
        });
      }
      document.dispatchEvent(new Event("rows-replaced"));
      document.dispatchEvent(new Event("rows-shown"));
    }, REDRAW_MS);
  }

  /** @param {Resource} resource */
  append(resource) {
    if (!(this.template instanceof HTMLTemplateElement) || !this.body) return;
    const part = /** @type {DocumentFragment} */ (this.template.content.cloneNode(true));
    const row = one("tr", part);
    if (!row) return;
    row.dataset.id = resource.message_id ?? resource.id;
    row.dataset.event = resource.id;
    row.dataset.href = `/messages/${row.dataset.id}`;
    one("a", row)?.setAttribute("href", row.dataset.href);
    this.body.append(row);
    this.update(row, resource);
    this.trim();
  }

  /** Old rows go, but none that the reader looks at moves. */
  trim() {
    const rows = all("tr[data-row]", this.body ?? document);
    if (rows.length <= KEPT) return;
    const height = document.documentElement.scrollHeight;
    for (const row of rows.slice(0, rows.length - KEPT)) row.remove();
    if (!this.follows) scrollBy(0, document.documentElement.scrollHeight - height);
  }

  tell() {
    const noun = this.page === "sessions" ? "new session" : "new event";
    if (this.pill && this.news.size) {
      this.pill.textContent = `${counted(this.news.size, noun)} — show`;
      this.pill.hidden = false;
    }
    for (const button of all("[data-pause]")) {
      button.setAttribute("aria-pressed", String(this.paused));
      button.textContent = this.paused ? `resume${this.held.size ? ` · ${this.held.size} waiting` : ""}` : "pause";
    }
    for (const place of all("[data-skipped]")) {
      place.hidden = !this.skipped;
      place.textContent = `+${this.skipped.toLocaleString("en")} not shown`;
    }
    for (const empty of all("[data-no-rows]")) empty.hidden = all("tr[data-row]", this.body ?? document).length > 0;
  }

  /** The newest rows are on the list's first page; where a page shows one session, it is the same page again. */
  showNews() {
    const url = new URL(location.href);
    for (const name of ["after", "before", "cursor"]) url.searchParams.delete(name);
    url.hash = "";
    if (url.href === location.href) location.reload();
    else location.assign(url);
  }

  pause() {
    this.paused = !this.paused;
    if (!this.paused) {
      const held = [...this.held.values()];
      this.held.clear();
      this.apply(held);
    }
    this.tell();
    announce(this.paused ? "paused" : "goes on");
  }

  /** @param {boolean} follows @param {boolean} [go] */
  follow(follows, go = follows) {
    this.follows = follows;
    for (const button of all("[data-follow]")) button.setAttribute("aria-pressed", String(follows));
    if (go) this.toEnd();
  }

  toEnd() {
    scrollTo(0, document.documentElement.scrollHeight);
  }
}

const atEnd = () => scrollY + innerHeight >= document.documentElement.scrollHeight - AT_END;

const { live, change } = document.body.dataset;
if (live) {
  const rows = new Rows();
  const stream = new Stream(live, Number(change ?? 0));
  stream.told = (resources) => rows.apply(resources);
  stream.passedOver = (count) => {
    rows.skipped += count;
    rows.tell();
  };
}

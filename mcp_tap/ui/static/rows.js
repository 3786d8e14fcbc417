// @ts-check
/** What a row says of a resource: cells marked `data-field`, in the words and shapes of the server's macros. */
import { duration, harmless, local, make, one, size } from "./words.js";

/** @typedef {Record<string, any>} Resource */

/** What an outcome that is neither success nor failure is called (ui/words.py). */
const OUTCOMES = new Map(Object.entries({ input_required: "input required", auth_challenge: "401" }));

/** @param {HTMLElement} row @param {string} name @param {(cell: HTMLElement) => void} fill */
function field(row, name, fill) {
  const cell = one(`[data-field="${name}"]`, row);
  if (cell) fill(cell);
}

/** @param {HTMLElement} row @param {string} name @param {string} text */
const say = (row, name, text) => field(row, name, (cell) => (cell.textContent = harmless(text)));

/** @param {string} text @param {number} limit */
const cut = (text, limit) => (text.length > limit ? `${text.slice(0, limit - 1)}…` : text);

/** How a message went: a shape, a word, a colour. @param {Resource} event @returns {Node | string} */
function status(event) {
  if (event.status === "failed") {
    const code = event.error?.code;
    const word = code && event.failure === "http_error" ? `HTTP ${code}` : code && event.failure === "rpc_error" ? code : event.failure;
    return make("span", { class: "err" }, `✕ ${cut(harmless(String(word ?? "failed").replaceAll("_", " ")), 24)}`);
  }
  if (event.outcome) return make("span", { class: "other" }, `◇ ${OUTCOMES.get(event.outcome) ?? event.outcome}`);
  if (event.status === "waiting_for_response") {
    return make("span", { class: "wait" }, make("i", { class: "ring", "aria-hidden": "true" }), "waiting");
  }
  return event.status === "succeeded" ? make("span", { class: "muted" }, "ok") : "";
}

/** @param {string} iso */
const time = (iso) => make("time", { datetime: iso, title: iso, "data-form": "clock" }, local(iso, "clock"));

/** @param {HTMLElement} row @param {Resource} event a `session.event` or `session.message` */
export function fillEvent(row, event) {
  row.dataset.status = event.status ?? "";
  field(row, "time", (cell) => {
    const place = one("a", cell) ?? cell;
    if (!one("time", place)) place.replaceChildren(time(event.created_at));
  });
  field(row, "event", (cell) => {
    const place = one("a", cell) ?? cell;
    if (place.textContent?.trim()) return;
    const name = event.target ? [" ", make("b", {}, cut(harmless(event.target), 80))] : [];
    place.replaceChildren(make("span", { class: "event" }, cut(harmless(event.name ?? ""), 60), ...name));
    if (event.attempt > 1) place.after(" ", make("span", { class: "badge" }, `↻ ${event.attempt}`));
  });
  say(row, "client", event.client ?? "");
  field(row, "latency", (cell) => {
    if (event.status === "waiting_for_response" && event.latency_ms === null) {
      if (!one("[data-ticking]", cell)) cell.replaceChildren(make("span", { "data-ticking": event.created_at }));
    } else cell.textContent = duration(event.latency_ms);
  });
  field(row, "status", (cell) => cell.replaceChildren(status(event)));
  field(row, "size", (cell) => (cell.textContent = size((event.request_bytes ?? 0) + (event.response_bytes ?? 0) || null)));
}

/** @param {HTMLElement} row @param {Resource} connection a `session.connection` */
export function fillSession(row, connection) {
  row.dataset.status = connection.has_errors ? "failed" : connection.status;
  const calls = connection.calls.toLocaleString("en");
  say(row, "calls", calls);
  field(row, "errors", (cell) => {
    const bad = connection.errors > 0;
    cell.replaceChildren(bad ? make("span", { class: "err" }, `${connection.errors.toLocaleString("en")} ✕`) : make("span", { class: "faint" }, "0"));
  });
}

/** What else is to be said about a line: the error's code and text, why it ended, a note. @param {Resource} event */
function remark(event) {
  if (!event.error) return (event.note ?? "").replaceAll("_", " ");
  const { code, message } = event.error;
  const shown = event.failure === "rpc_error" ? code : event.failure === "http_error" && code ? `HTTP ${code}` : "";
  return [shown, message].filter(Boolean).join(" ");
}

/** A line of a short timeline. @param {HTMLElement} row @param {Resource} event a `session.event` */
export function fillLine(row, event) {
  row.classList.toggle("bad", event.status === "failed");
  field(row, "time", (cell) => cell.replaceChildren(time(event.created_at)));
  field(row, "event", (cell) => {
    const text = cut(harmless(event.name), 60) + (event.target ? ` → ${cut(harmless(event.target), 80)}` : "");
    cell.replaceChildren(event.message_id ? make("a", { href: `/messages/${event.message_id}` }, text) : text);
  });
  say(row, "latency", duration(event.latency_ms));
  say(row, "status", event.status === "failed" ? "failed" : (one("span", make("p", {}, status(event)))?.textContent ?? ""));
  say(row, "note", cut(remark(event), 160));
}

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

/** Name and version, the version quieter. @param {string | null} words */
function client(words) {
  const at = words?.lastIndexOf(" ") ?? -1;
  if (!words || at < 0) return make("span", {}, cut(harmless(words ?? "unknown"), 40));
  const version = make("span", { class: "muted" }, cut(harmless(words.slice(at + 1)), 24));
  return make("span", {}, cut(harmless(words.slice(0, at)), 40), " ", version);
}

/** The end of an id of ours: the beginning of ids made together is the same. @param {string} id */
const short = (id) => `${id.split("_")[0]}_…${id.slice(-6)}`;

/** What a session is called: the beginning of its Mcp-Session-Id, else the end of our own id. @param {Resource} event */
function called({ mcp_session_id: raw, connection_id: id }) {
  return raw ? raw.slice(0, raw.startsWith("hash:") ? 13 : 8) : short(id);
}

/** 2nd, 3rd, 11th. @param {number} number */
function nth(number) {
  const teen = number % 100 >= 11 && number % 100 <= 13;
  return number + (teen ? "th" : (["th", "st", "nd", "rd"][number % 10] ?? "th"));
}

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
    if (event.direction === "server_to_client" && event.kind === "request") {
      place.prepend(make("span", { class: "badge", title: "the server asks the client" }, "← server"), " ");
    }
    if (event.attempt > 1) {
      const leg = event.outcome === "input_required" ? "round" : "try";
      place.append(" ", make("span", { class: "badge", title: "the same was asked before in this session" }, `↻ ${nth(event.attempt)} ${leg}`));
    }
  });
  field(row, "session", (cell) => {
    if (cell.textContent?.trim()) return;
    if (!event.session_id) return cell.replaceChildren(make("span", { class: "faint" }, "before any session"));
    cell.replaceChildren(make("a", { href: `/sessions/${event.session_id}?event=${event.id}` }, harmless(called(event))));
  });
  field(row, "client", (cell) => {
    if (!cell.textContent?.trim() && event.session_id) cell.replaceChildren(client(event.client));
  });
  field(row, "latency", (cell) => {
    if (event.status === "waiting_for_response" && event.latency_ms === null) {
      if (!one("[data-ticking]", cell)) cell.replaceChildren(make("span", { "data-ticking": event.created_at }));
    } else cell.textContent = duration(event.latency_ms);
  });
  field(row, "status", (cell) => cell.replaceChildren(status(event)));
  field(row, "size", (cell) => (cell.textContent = size((event.request_bytes ?? 0) + (event.response_bytes ?? 0) || null)));
}

/** Why sessions end, in the words of ui/words.py where the code does not say it itself. */
const ENDS = new Map(Object.entries({ client_delete: "deleted", session_not_found: "not found", idle_timeout: "idle", shutdown: "tap stopped" }));

/** The state of a session: active, quiet, or ended and why. @param {Resource} connection @returns {HTMLElement} */
function life(connection) {
  const state = connection.status !== "active" ? "ended" : connection.connection_state === "connected" ? "active" : "quiet";
  const shown = make("span", { class: "status", "data-state": state }, make("i", { class: `dot ${state}`, "aria-hidden": "true" }), state === "ended" ? "ended" : "active");
  if (state === "quiet") {
    shown.append(" ", make("span", { class: "faint" }, "quiet for ", make("span", { "data-ticking": connection.last_active_at })));
  } else if (connection.end_reason) {
    const reason = ENDS.get(connection.end_reason) ?? connection.end_reason.replaceAll("_", " ");
    shown.append(" ", make("span", { class: "faint" }, reason));
  }
  return shown;
}

/** @param {HTMLElement} row @param {Resource} connection a `session.connection` */
export function fillSession(row, connection) {
  const bad = connection.errors > 0;
  row.dataset.status = bad ? "failed" : connection.status;
  say(row, "calls", connection.calls.toLocaleString("en"));
  field(row, "errors", (cell) => {
    cell.textContent = connection.errors.toLocaleString("en") + (bad ? " ✕" : "");
    cell.classList.toggle("err", bad);
    cell.classList.toggle("faint", !bad);
  });
  field(row, "status", (cell) => {
    const next = life(connection);
    if (cell.textContent?.trim() !== next.textContent) cell.replaceChildren(next);
  });
  if (connection.status !== "active") say(row, "duration", duration(connection.duration_ms));
  field(row, "tools", (cell) => {
    const tools = Object.keys(connection.tool_calls);
    const more = tools.length > 3 ? [" ", make("span", { class: "more" }, `+${tools.length - 3}`)] : [];
    cell.replaceChildren(cut(harmless(tools.slice(0, 3).join(", ")), 90), ...more);
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

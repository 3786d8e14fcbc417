// @ts-check
/**
 * What every script here is made of: finding and making elements, quantities and times in words, and a voice.
 *
 * No script of these pages parses HTML. Foreign text goes into text nodes and attributes only, and the pages' policy
 * (Trusted Types 'none') has the browser refuse anything else.
 */

/** @param {Element} element @returns {element is HTMLElement} */
const visible = (element) => element instanceof HTMLElement || element instanceof SVGElement;

/** @param {string} selector @param {ParentNode} [within] @returns {HTMLElement | null} */
export const one = (selector, within = document) => within.querySelector(selector);

/** @param {string} selector @param {ParentNode} [within] @returns {HTMLElement[]} */
export const all = (selector, within = document) => [...within.querySelectorAll(selector)].filter(visible);

/**
 * Make an element.
 * @param {string} tag @param {Record<string, string>} [attributes] @param {...(string | Node)} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Say something to whoever listens to the page instead of looking at it. @param {string} text */
export function announce(text) {
  const region = one("[data-announce]");
  if (region) region.textContent = text;
}

/**
 * Controls, bidirectional and invisible marks would show an order and a text that are not there: they are shown by
 * their number, as the server shows them (ui/text.py).
 */
const UNSEEN = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb]/g;

/** @param {string} text */
export const harmless = (text) =>
  text.replace(UNSEEN, (char) => {
    const point = char.charCodeAt(0);
    return point < 0x100 ? `\\x${point.toString(16).padStart(2, "0")}` : `\\u${point.toString(16).padStart(4, "0")}`;
  });

// ------------------------------------------------------------------------------------------------- quantities
// In the words that the server has for them (ui/text.py).

/** @param {number | null | undefined} ms @returns {string} */
export function duration(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 9.95) return `${ms.toFixed(1).replace(/\.0$/, "")} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor(minutes / 60) % 24} h`;
}

/** @param {number | null | undefined} count @returns {string} bytes in powers of ten */
export function size(count) {
  if (count === null || count === undefined) return "";
  if (count < 1000) return `${count} B`;
  let amount = count;
  let unit = "B";
  for (unit of ["kB", "MB", "GB", "TB"]) {
    amount /= 1000;
    if (amount < 999.5) break;
  }
  return `${amount < 9.95 ? amount.toFixed(1) : Math.round(amount)} ${unit}`;
}

/** @param {number} number @param {string} noun @returns {string} */
export const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// ------------------------------------------------------------------------------------------------------ times

const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/**
 * A time in the reader's zone, in the forms of ui/web.py.
 * @param {string} iso @param {string | undefined} form @returns {string}
 */
export function local(iso, form) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return iso;
  if (form === "relative") return ago(Date.now() - time.getTime());
  const two = (/** @type {number} */ number) => String(number).padStart(2, "0");
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  const milliseconds = `.${String(time.getMilliseconds()).padStart(3, "0")}`;
  const day = `${two(time.getDate())} ${MONTHS[time.getMonth()]}`;
  if (form === "time") return clock + milliseconds;
  if (form === "full") return `${day} ${time.getFullYear()}, ${clock}${milliseconds}`;
  return time.toDateString() === new Date().toDateString() ? clock + milliseconds : `${day}, ${clock}`;
}

/** @param {number} ms @returns {string} */
const ago = (ms) => (ms < 1000 ? "now" : `${duration(Math.floor(ms / 1000) * 1000).replace(".00", "")} ago`);

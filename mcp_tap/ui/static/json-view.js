// @ts-check
/**
 * JSON as a tree: folds open and close, keys walk it (the ARIA tree pattern), values and paths can be copied.
 *
 * What it shows was written by a stranger. Only text nodes carry it, nothing becomes a link, children are made when
 * their parent is opened, and strings are shown in portions, so that ten megabytes do not stop the page.
 */
import { copyText } from "./copy.js";
import { all, harmless, make, one, size } from "./words.js";

/** Characters of a string that are shown at first, and that each further press of its button adds. */
const PORTION = 600;
const FURTHER = 100_000;

/** Children that are shown at first, and that each further press of the button adds. */
const CHILDREN = 100;

/** Text beyond this stays as it came: parsing it would stop the page for longer than a reader waits. */
const LARGEST = 4_000_000;

/** What the tap wrote in the place of a secret (protocol/redact.py). */
const MASKED = /^•••• \(redacted: ([^)]{1,40})\)$/;

/** @param {string} path @param {string | number} key */
function below(path, key) {
  if (typeof key === "number") return `${path}[${key}]`;
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`;
}

/** @param {unknown} value @returns {[string | number, unknown][]} */
function members(value) {
  return Array.isArray(value) ? value.map((member, index) => [index, member]) : Object.entries(/** @type {object} */ (value));
}

/** @param {unknown} value @returns {value is object} */
const nested = (value) => typeof value === "object" && value !== null;

/** @param {string} text @returns {Node} a string, in portions when it is long */
function longString(text) {
  // what stands for a secret is the tap's word, not the string that was there
  if (MASKED.test(text)) return make("span", { class: "json-masked" }, text.replace(MASKED, "•••• redacted ($1)"));
  const kind = "json-string";
  const shown = make("span", { class: kind });
  let end = 0;
  const more = make("button", { type: "button", class: "json-more", tabindex: "-1" });
  const grow = (/** @type {number} */ by) => {
    const part = harmless(JSON.stringify(text.slice(end, end + by)).slice(1, -1).replaceAll("\\n", "\n"));
    end = Math.min(text.length, end + by);
    shown.append(part);
    more.textContent = `… ${size(text.length - end)} more`;
    more.hidden = end >= text.length;
  };
  more.addEventListener("click", (event) => (event.stopPropagation(), grow(FURTHER)));
  shown.append('"');
  grow(PORTION);
  return make("span", {}, shown, more, make("span", { class: kind }, '"'));
}

/** @param {unknown} value @returns {Node} */
function leaf(value) {
  if (typeof value === "string") return longString(value);
  return make("span", { class: value === null ? "json-null" : `json-${typeof value}` }, String(value));
}

/** @param {object} value @returns {string} */
function folded(value) {
  const count = Array.isArray(value) ? value.length : Object.keys(value).length;
  return Array.isArray(value) ? `[ ${count} ]` : `{ ${count} }`;
}

/**
 * @param {string | number | null} key @param {unknown} value @param {string} path @param {number} level
 * @returns {HTMLElement}
 */
function item(key, value, path, level) {
  const line = make("div", { class: "json-line" });
  const node = make("div", { role: "treeitem", tabindex: "-1", "data-path": path, "aria-level": String(level) }, line);
  if (key !== null) line.append(make("span", { class: "json-key" }, harmless(String(key))), ": ");
  values.set(node, value);
  if (nested(value)) {
    line.append(make("span", { class: "json-count" }, folded(value)));
    line.classList.add("json-fold");
    node.setAttribute("aria-expanded", "false");
  } else line.append(leaf(value));
  return node;
}

/** @type {WeakMap<Element, unknown>} */
const values = new WeakMap();

/** @param {HTMLElement} node @param {boolean} open */
function fold(node, open) {
  const value = values.get(node);
  if (!nested(value)) return;
  node.setAttribute("aria-expanded", String(open));
  let group = node.querySelector(":scope > [role=group]");
  if (!open) group?.setAttribute("hidden", "");
  else if (group) group.removeAttribute("hidden");
  else {
    group = make("div", { role: "group" });
    node.append(group);
    fill(group, node, members(value), 0);
  }
}

/** @param {Element} group @param {HTMLElement} node @param {[string | number, unknown][]} list @param {number} from */
function fill(group, node, list, from) {
  const path = node.dataset.path ?? "$";
  const level = Number(node.getAttribute("aria-level")) + 1;
  for (const [key, value] of list.slice(from, from + CHILDREN)) group.append(item(key, value, below(path, key), level));
  if (from + CHILDREN >= list.length) return;
  const more = make("button", { type: "button", class: "json-more", tabindex: "-1" }, `… ${list.length - from - CHILDREN} more`);
  more.addEventListener("click", () => (more.remove(), fill(group, node, list, from + CHILDREN)));
  group.append(more);
}

/** @param {HTMLElement} tree @returns {HTMLElement[]} the lines that can be seen, in order */
const visible = (tree) => all("[role=treeitem]", tree).filter((node) => !node.closest("[role=group][hidden]"));

/** @param {HTMLElement} tree @param {HTMLElement | undefined} node */
function walkTo(tree, node) {
  if (!node) return;
  for (const other of all("[tabindex='0']", tree)) other.tabIndex = -1;
  node.tabIndex = 0;
  node.focus();
}

/** @param {HTMLElement} node */
const plain = (node) => {
  const value = values.get(node);
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
};

/** @param {KeyboardEvent} event */
function walk(event) {
  const tree = /** @type {HTMLElement} */ (event.currentTarget);
  const node = event.target instanceof Element ? event.target.closest("[role=treeitem]") : null;
  if (!(node instanceof HTMLElement) || event.ctrlKey || event.metaKey || event.altKey) return;
  const list = visible(tree);
  const at = list.indexOf(node);
  const open = node.getAttribute("aria-expanded");
  switch (event.key) {
    case "ArrowDown": walkTo(tree, list[at + 1]); break;
    case "ArrowUp": walkTo(tree, list[at - 1]); break;
    case "Home": walkTo(tree, list[0]); break;
    case "End": walkTo(tree, list.at(-1)); break;
    case "ArrowRight":
      if (open === "false") fold(node, true);
      else if (open === "true") walkTo(tree, list[at + 1]);
      break;
    case "ArrowLeft":
      if (open === "true") fold(node, false);
      else walkTo(tree, /** @type {HTMLElement | undefined} */ (node.parentElement?.closest("[role=treeitem]") ?? undefined));
      break;
    case "Enter":
    case " ":
      if (open) fold(node, open === "false");
      else node.querySelector(".json-more")?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
      break;
    case "c": void copyText(plain(node)); break;
    case "C": void copyText(node.dataset.path ?? "$"); break;
    default: return;
  }
  event.preventDefault();
  event.stopPropagation();
}

/**
 * Return a tree of a value, its first level open.
 * @param {unknown} value @param {string} label
 */
export function tree(value, label) {
  const root = item(null, value, "$", 1);
  root.tabIndex = 0;
  const box = make("div", { role: "tree", class: "json-tree", "aria-label": label }, root);
  fold(root, true);
  for (const node of all("[role=treeitem]", root).slice(0, 30)) fold(node, visible(box).length < 30);
  box.addEventListener("keydown", walk);
  box.addEventListener("click", (event) => {
    const line = event.target instanceof Element ? event.target.closest(".json-line") : null;
    const node = line?.parentElement;
    if (!(node instanceof HTMLElement) || document.getSelection()?.toString()) return;
    walkTo(box, node);
    fold(node, node.getAttribute("aria-expanded") === "false");
  });
  return box;
}

/** Two buttons that copy what the tree's focus is on. @param {HTMLElement} box */
function tools(box) {
  const at = () => all("[tabindex='0']", box)[0];
  /** @param {string} text @param {(node: HTMLElement) => string} what */
  const button = (text, what) => {
    const made = make("button", { type: "button", class: "quiet" }, text);
    made.addEventListener("click", () => void copyText(what(at() ?? box), made));
    return made;
  };
  const path = button("copy path", (node) => node.dataset.path ?? "$");
  return make("div", { class: "json-tools", title: "arrows walk through it; c copies the value, C the path" }, button("copy value", plain), path);
}

/**
 * Show a tree in the place of every text marked `data-json`; what is no JSON stays as it is. The text itself stays in
 * the page: it is what the buttons copy.
 * @param {ParentNode} [within]
 */
export function showJson(within = document) {
  for (const element of all("[data-json]:not([hidden])", within)) {
    const from = element.dataset.jsonFrom ? one(element.dataset.jsonFrom, within) : null;
    const text = (from instanceof HTMLTextAreaElement ? from.value : element.textContent) ?? "";
    if (text.length > LARGEST) continue;
    try {
      const value = JSON.parse(text);
      if (!nested(value)) continue;
      const box = tree(value, element.dataset.json || element.getAttribute("aria-label") || "JSON");
      const holder = make("div", { class: "json-view" }, box, tools(box));
      element.hidden = true;
      element.after(holder);
    } catch {
      continue; // cut at the recording's limit, or never was JSON
    }
  }
}

showJson();

// @ts-check
/**
 * Dragging over a chart asks for the time that was dragged over. Without a pointer the same is asked for by the links
 * in the table behind each chart, and by the range of time on top of the page.
 */
import { all } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** Units of the drawing below which a drag was meant as a click, which follows the link under it. */
const CLICK = 6;

/** What says of a range of time, and of a place in a list that another range does not have. */
const REPLACED = ["since", "from", "to", "after", "before", "cursor"];

/** @param {number} us @returns {string} microseconds since the epoch as filters read them */
const moment = (us) => new Date(us / 1000).toISOString();

class Chart {
  /** @param {SVGSVGElement} svg whose data say from where to where its axis of time runs, in units and in microseconds */
  constructor(svg) {
    this.svg = svg;
    const { left, right, from, to } = svg.dataset;
    this.left = Number(left);
    this.right = Number(right);
    this.from = Number(from);
    this.to = Number(to);
    this.began = NaN;
    this.dragged = false;
    svg.addEventListener("pointerdown", (event) => this.press(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    svg.addEventListener("pointerup", (event) => this.release(event));
    svg.addEventListener("pointercancel", () => this.stop());
    svg.addEventListener("dragstart", (event) => event.preventDefault()); // of the links that lie over the picture
    svg.addEventListener("click", (event) => this.dragged && event.preventDefault(), true);
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.stop());
  }

  /** @param {PointerEvent} event @returns {number} the place on the axis that is nearest to the pointer */
  place(event) {
    const matrix = this.svg.getScreenCTM();
    const { x } = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix?.inverse());
    return Math.min(this.right, Math.max(this.left, x));
  }

  /** @param {PointerEvent} event */
  press(event) {
    this.dragged = false;
    if (event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey) this.began = this.place(event);
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (Number.isNaN(this.began)) return;
    const at = this.place(event);
    if (!this.dragged && Math.abs(at - this.began) < CLICK) return;
    if (!this.dragged) this.svg.setPointerCapture(event.pointerId);
    this.dragged = true;
    let window = this.svg.querySelector(".window");
    if (!window) this.svg.append((window = document.createElementNS(SVG, "rect")));
    window.setAttribute("class", "window");
    window.setAttribute("x", String(Math.min(at, this.began)));
    window.setAttribute("width", String(Math.abs(at - this.began)));
    window.setAttribute("height", String(this.svg.viewBox.baseVal.height));
  }

  /** @param {PointerEvent} event */
  release(event) {
    const ends = [this.began, this.place(event)].sort((a, b) => a - b);
    const meant = this.dragged && !Number.isNaN(this.began);
    this.began = NaN;
    if (!meant) return;
    const url = new URL(location.href);
    for (const name of REPLACED) url.searchParams.delete(name);
    const [from = "", to = ""] = ends.map((at) => moment(this.time(at)));
    url.searchParams.set("from", from);
    url.searchParams.set("to", to);
    url.hash = "";
    location.assign(url);
  }

  /** @param {number} place @returns {number} */
  time(place) {
    return this.from + ((place - this.left) / (this.right - this.left)) * (this.to - this.from);
  }

  /** Leave everything as it was. */
  stop() {
    this.began = NaN;
    this.svg.querySelector(".window")?.remove();
  }
}

for (const svg of all("svg[data-chart][data-from]")) new Chart(/** @type {SVGSVGElement} */ (/** @type {Element} */ (svg)));

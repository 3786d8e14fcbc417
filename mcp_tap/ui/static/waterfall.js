// @ts-check
/**
 * The waterfall of a session: dragging over the minimap zooms, keys and links too, the pointer reads times.
 *
 * Every line's picture is drawn by the server in the same units, so zooming is another viewBox for all of them. A page
 * whose URL names a zoom has only that part in its pictures: there the links lead to other pages, as without a script.
 */
import { all, announce, duration, one } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** A drag shorter than this share of the width is a click, and the smallest share that can be looked at. */
const CLICK = 0.01;
const CLOSEST = 0.0005;

const DRAWN = /^\?(?:.*&)?zoom=(\d*\.?\d+)\.\.(\d*\.?\d+)/.exec(location.search);

/** @param {Element} element @returns {SVGSVGElement} */
const svg = (element) => /** @type {SVGSVGElement} */ (element);

class Waterfall {
  /** @param {HTMLElement} section what holds the minimap and the lines of one connection */
  constructor(section) {
    this.section = section;
    /** @type {[number, number]} what is shown, as shares of the whole */
    this.shown = DRAWN ? [Number(DRAWN[1]), Number(DRAWN[2])] : [0, 1];
    this.began = NaN;
    section.addEventListener("pointerdown", (event) => this.press(event));
    section.addEventListener("pointermove", (event) => this.move(event));
    section.addEventListener("pointerup", (event) => this.release(event));
    section.addEventListener("pointercancel", () => ((this.began = NaN), this.mark(...this.shown)));
    section.addEventListener("dblclick", (event) => this.onMinimap(event) && this.show(0, 1));
    section.addEventListener("click", (event) => this.click(event));
    if (DRAWN) this.mark(...this.shown);
  }

  get minimap() {
    return svg(/** @type {Element} */ (this.section.querySelector("svg[data-minimap]")));
  }

  /** @param {Event} event */
  onMinimap(event) {
    return event.target instanceof Node && this.minimap.contains(event.target);
  }

  /** @param {PointerEvent} event @param {Element} [of] @returns {number} where on a picture that is, from 0 to 1 */
  share(event, of = this.minimap) {
    const box = of.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  }

  /**
   * How many milliseconds after the beginning a place is. Pauses are folded, so that time runs at different speeds.
   * @param {number} share from 0 to 1 @returns {number}
   */
  moment(share) {
    const place = share * this.minimap.viewBox.baseVal.width;
    const knots = (this.minimap.dataset.knots ?? "0:0").split(" ").map((knot) => knot.split(":").map(Number));
    const next = knots.findIndex(([at = 0]) => at >= place);
    const [[left = 0, began = 0] = [], [right = 0, ended = 0] = []] = next > 0 ? knots.slice(next - 1) : [knots.at(next)];
    return right > left ? began + ((place - left) / (right - left)) * (ended - began) : began;
  }

  /** @param {PointerEvent} event */
  press(event) {
    if (event.button !== 0 || !this.onMinimap(event)) return;
    this.began = this.share(event);
    this.minimap.setPointerCapture(event.pointerId);
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (!Number.isNaN(this.began)) this.mark(this.began, this.share(event));
    if (this.onMinimap(event)) return this.read(this.share(event));
    const line = event.target instanceof Element ? event.target.closest("svg[data-waterfall]") : null;
    if (!line) return this.read(NaN);
    const [from, to] = this.shown;
    this.read(from + this.share(event, line) * (to - from), line.querySelector("title")?.textContent ?? "");
  }

  /** @param {PointerEvent} event */
  release(event) {
    if (Number.isNaN(this.began)) return;
    const [began, ended] = [this.began, this.share(event)];
    this.began = NaN;
    if (Math.abs(ended - began) > CLICK) this.show(began, ended);
    else this.around(ended, this.shown[1] - this.shown[0]);
  }

  /** @param {MouseEvent} event */
  click(event) {
    const link = event.target instanceof Element ? event.target.closest("[data-zoom]") : null;
    if (!(link instanceof HTMLElement) || DRAWN) return;
    event.preventDefault();
    const [from, to] = this.shown;
    if (link.dataset.zoom === "fit") this.show(0, 1);
    else this.around((from + to) / 2, (to - from) * (link.dataset.zoom === "in" ? 0.5 : 2));
  }

  /** @param {number} middle @param {number} width */
  around(middle, width) {
    const half = Math.min(1, Math.max(CLOSEST, width)) / 2;
    const at = Math.min(1 - half, Math.max(half, middle));
    this.show(at - half, at + half);
  }

  /** @param {number} a @param {number} b */
  show(a, b) {
    const [from, to] = [Math.min(a, b), Math.max(a, b, Math.min(a, b) + CLOSEST)];
    const whole = from <= 0 && to >= 1;
    if (DRAWN) {
      const url = new URL(location.href);
      if (whole) url.searchParams.delete("zoom");
      else url.searchParams.set("zoom", `${from.toFixed(4)}..${to.toFixed(4)}`);
      return location.assign(url);
    }
    this.shown = [from, to];
    this.draw();
    announce(whole ? "the whole session" : `${Math.round((to - from) * 100)} % of the session`);
  }

  /** Show what is to be shown, in lines that may have been replaced since. */
  draw() {
    if (DRAWN) return this.mark(...this.shown);
    const [from, to] = this.shown;
    for (const line of this.section.querySelectorAll("svg[data-waterfall]")) {
      const box = svg(line).viewBox.baseVal;
      const units = Number(line.getAttribute("data-units") ?? box.width);
      line.setAttribute("data-units", String(units));
      line.setAttribute("viewBox", `${from * units} ${box.y} ${(to - from) * units} ${box.height}`);
    }
    this.mark(from, to);
    all(".scale[aria-hidden] span", this.section).forEach((mark, index, { length }) => {
      mark.textContent = duration(this.moment(from + ((to - from) * index) / (length - 1)));
    });
  }

  /** @param {number} a @param {number} b */
  mark(a, b) {
    const { minimap } = this;
    const { width, height } = minimap.viewBox.baseVal;
    let window = minimap.querySelector(".window");
    if (!window) minimap.append((window = document.createElementNS(SVG, "rect")));
    const [from, to] = [Math.min(a, b), Math.max(a, b)];
    window.setAttribute("class", "window");
    window.setAttribute("y", "0");
    window.setAttribute("height", String(height));
    window.setAttribute("x", String(from * width));
    window.setAttribute("width", String(Math.max(1, (to - from) * width)));
    window.setAttribute("visibility", from <= 0 && to >= 1 ? "hidden" : "visible");
  }

  /** Say what is under the pointer. @param {number} share @param {string} [line] */
  read(share, line = "") {
    const readout = one("[data-readout]", this.section);
    if (!readout) return;
    const time = Number.isNaN(share) ? "" : `+${duration(this.moment(share))}`;
    readout.textContent = [time, line].filter(Boolean).join(" · ");
  }
}

const waterfalls = all("section:has(svg[data-minimap])").map((section) => new Waterfall(section));

document.addEventListener("rows-replaced", () => waterfalls.forEach((waterfall) => waterfall.draw()));

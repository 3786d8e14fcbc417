// @ts-check
/**
 * The waterfall of a session: dragging over the minimap zooms, keys and buttons too, the pointer reads times.
 *
 * Every bar is drawn by the server in one coordinate system, so zooming is another viewBox for the same drawings.
 */
import { all, announce, duration, one } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** A drag shorter than this share of the width is a click. */
const CLICK = 0.01;

/** The smallest share of a session that can be looked at. */
const CLOSEST = 0.0005;

class Waterfall {
  /** @param {SVGSVGElement} minimap */
  constructor(minimap) {
    this.minimap = minimap;
    this.from = Number(minimap.dataset.from ?? 0);
    this.to = Number(minimap.dataset.to ?? 1);
    /** @type {[number, number]} what is shown, as shares of the whole */
    this.shown = [0, 1];
    const { width, height } = minimap.viewBox.baseVal;
    this.width = width || minimap.clientWidth;
    this.selection = document.createElementNS(SVG, "rect");
    this.selection.setAttribute("class", "window");
    this.selection.setAttribute("y", "0");
    this.selection.setAttribute("height", String(height || minimap.clientHeight));
    this.selection.setAttribute("visibility", "hidden");
    minimap.append(this.selection);
    /** @type {{ svg: SVGSVGElement, x: number, y: number, width: number, height: number }[]} */
    this.drawings = all("svg[data-waterfall]").map((element) => {
      const svg = /** @type {SVGSVGElement} */ (/** @type {unknown} */ (element));
      const { x, y, width, height } = svg.viewBox.baseVal;
      return { svg, x, y, width, height };
    });
    this.listen();
  }

  listen() {
    let began = NaN;
    this.minimap.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      began = this.share(event);
      this.minimap.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    this.minimap.addEventListener("pointermove", (event) => {
      this.read(this.share(event));
      if (!Number.isNaN(began)) this.mark(began, this.share(event));
    });
    this.minimap.addEventListener("pointerup", (event) => {
      if (Number.isNaN(began)) return;
      const ended = this.share(event);
      if (Math.abs(ended - began) > CLICK) this.show(began, ended);
      else this.centre(ended);
      began = NaN;
    });
    this.minimap.addEventListener("pointercancel", () => {
      began = NaN;
      this.show(...this.shown);
    });
    this.minimap.addEventListener("dblclick", () => this.show(0, 1));
    for (const { svg } of this.drawings) {
      svg.addEventListener("pointermove", (event) => {
        const box = svg.getBoundingClientRect();
        const [from, to] = this.shown;
        this.read(from + ((event.clientX - box.left) / box.width) * (to - from), svg.querySelector("title")?.textContent ?? "");
      });
      svg.addEventListener("pointerleave", () => this.read(NaN));
    }
    this.minimap.addEventListener("pointerleave", () => this.read(NaN));
    document.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("[data-zoom]") : null;
      if (!(button instanceof HTMLElement)) return;
      event.preventDefault();
      if (button.dataset.zoom === "fit") this.show(0, 1);
      else this.zoom(button.dataset.zoom === "in" ? 0.5 : 2);
    });
  }

  /** @param {PointerEvent} event @returns {number} where on the minimap that is, from 0 to 1 */
  share(event) {
    const box = this.minimap.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  }

  /** @param {number} factor */
  zoom(factor) {
    const [from, to] = this.shown;
    const half = Math.min(1, Math.max(CLOSEST, (to - from) * factor)) / 2;
    const middle = Math.min(1 - half, Math.max(half, (from + to) / 2));
    this.show(middle - half, middle + half);
  }

  /** @param {number} middle */
  centre(middle) {
    const half = (this.shown[1] - this.shown[0]) / 2;
    const at = Math.min(1 - half, Math.max(half, middle));
    this.show(at - half, at + half);
  }

  /** @param {number} a @param {number} b */
  show(a, b) {
    const from = Math.min(a, b);
    const to = Math.max(a, b, from + CLOSEST);
    this.shown = [from, to];
    for (const { svg, x, y, width, height } of this.drawings) {
      svg.setAttribute("viewBox", `${x + from * width} ${y} ${(to - from) * width} ${height}`);
    }
    this.mark(from, to);
    const whole = from <= 0 && to >= 1;
    this.minimap.toggleAttribute("data-zoomed", !whole);
    if (whole) this.selection.setAttribute("visibility", "hidden");
    announce(whole ? "the whole session" : `zoomed to ${duration((to - from) * (this.to - this.from))}`);
  }

  /** @param {number} a @param {number} b */
  mark(a, b) {
    this.selection.setAttribute("x", String(Math.min(a, b) * this.width));
    this.selection.setAttribute("width", String(Math.max(1, Math.abs(b - a) * this.width)));
    this.selection.setAttribute("visibility", "visible");
  }

  /** Say what is under the pointer. @param {number} share @param {string} [bar] */
  read(share, bar = "") {
    const readout = one("[data-readout]");
    if (!readout) return;
    // where gaps are folded, places are no times
    const time = Number.isNaN(share) || "folded" in this.minimap.dataset ? "" : `+${duration(share * (this.to - this.from))}`;
    readout.textContent = [time, bar].filter(Boolean).join(" · ");
  }
}

const minimap = document.querySelector("svg[data-minimap]");
if (minimap instanceof SVGSVGElement) new Waterfall(minimap);

// Splits: what is train, validation and test over time and series; a window as the model sees it.

import { ask } from "/static/api.js";
import { axes_base, sized } from "/static/chart.js";
import { moment } from "/static/clock.js";
import { colour, counted, css, el, failure, tip } from "/static/dom.js";
import * as state from "/static/state.js";

export const title = "Splits";

const NAMES = ["train", "val", "test"];
const LINE_H = 8;
const MOST_LINES = 12;

export async function show(page, overview, at) {
  const view = new View(page, overview, at);
  await view.begin();
  return view;
}

class View {
  constructor(page, overview, at) {
    Object.assign(this, { page, overview });
    this.run = at.one("run");
    this.split = NAMES.includes(at.one("split")) ? at.one("split") : "train";
    this.number = at.number("window");
    this.keys = "r another window, ← → neighbours";
    this.hint = tip();
    this.plots = [];
  }

  async begin() {
    const runs = await ask("splits/list");
    if (!runs.includes(this.run)) [this.run] = runs;
    const choose = el("select", { "aria-label": "run", onchange: () => { this.run = choose.value; this.number = null; this.load(); } }, runs.map((name) => el("option", { value: name, selected: name === this.run }, name)));
    this.box = el("div", {}, el("p", { class: "quiet" }, "counting windows, and proving that none share a target…"));
    this.window_box = el("div", {});
    this.split_choice = el("select", { "aria-label": "split", onchange: () => { this.split = this.split_choice.value; this.number = null; this.window(); } }, NAMES.map((name) => el("option", { value: name, selected: name === this.split }, name)));
    this.page.append(el("div", { class: "row" }, el("label", {}, "configuration ", choose)), this.box,
      el("h2", {}, "A window as the model sees it"),
      el("div", { class: "row" }, this.split_choice, el("button", { onclick: () => this.another() }, "another at random"), el("button", { onclick: () => this.beside(-1) }, "←"), el("button", { onclick: () => this.beside(1) }, "→")), this.window_box);
    await this.load();
  }

  async load() {
    this.parts = null;
    try {
      const { run } = this;
      const parts = await ask("splits/parts", { run });
      if (this.run !== run || this.gone) return; // another one was chosen meanwhile
      this.parts = parts;
      window.zstoreView.told("splits", this.parts);
      this.draw();
      await this.window();
    } catch (error) {
      this.box.replaceChildren(failure(error));
    }
  }

  draw() {
    const { parts, ids, bars, start, stop, n_series, about } = this.parts;
    const rows = parts.map((part) => el("tr", {}, el("td", {}, el("span", { class: "dot", style: { background: colour(NAMES.indexOf(part.name)) } }), part.name),
      [part.n_windows, part.n_series, part.n_rows, part.n_targets, part.n_missing].map((n) => el("td", { class: "number" }, counted(n))),
      el("td", {}, part.first || "–"), el("td", {}, part.last || "–"), el("td", { class: "quiet" }, part.why_none)));
    const head = ["split", "windows", "series", "rows read", "targets", "missing", "first target", "last target", ""];
    const width = Math.min(Math.max(this.box.clientWidth, 240), 1100);
    const canvas = sized(el("canvas", { class: "plain", role: "img", "aria-label": "targets of each split over time" }), width, Math.max(ids.length * LINE_H, 24));
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const x = (seconds) => ((seconds - start) / (stop - start || 1)) * width;
    for (const [line, name, low, high] of bars) {
      context.fillStyle = colour(NAMES.indexOf(name));
      context.fillRect(x(low), line * LINE_H, Math.max(x(high) - x(low), 1), LINE_H - 1);
    }
    canvas.addEventListener("mousemove", (event) => {
      const box = canvas.getBoundingClientRect();
      const line = Math.min(Math.max(Math.floor(((event.clientY - box.top) / box.height) * ids.length), 0), ids.length - 1);
      const when = start + ((event.clientX - box.left) / box.width) * (stop - start);
      const own = bars.find(([place, , low, high]) => place === line && low <= when && when <= high);
      this.hint.show(event, `${ids[line]}, ${moment(this.overview.is_dated ? when : Math.round(when))}${own ? `: ${own[1]}` : ""}`);
    });
    canvas.addEventListener("mouseleave", () => this.hint.hide());
    const some = ids.length < n_series ? `${counted(ids.length)} of ${counted(n_series)} series` : "each series";
    this.box.replaceChildren(el("p", {}, `windows of ${about}`), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { class: at > 0 && at < 6 ? "number" : "" }, name)))), el("tbody", {}, rows))),
      el("h2", {}, "Targets over time"), el("figure", {}, canvas, el("figcaption", {}, `${moment(start)} to ${moment(stop)}, ${some} a line`)));
  }

  get n() {
    return this.parts.parts.find((part) => part.name === this.split)?.n_windows || 0;
  }

  another() {
    if (!this.parts) return;
    this.number = Math.floor(Math.random() * this.n);
    this.window();
  }

  beside(by) {
    if (!this.parts) return;
    this.number = Math.min(Math.max((this.number ?? 0) + by, 0), Math.max(this.n - 1, 0));
    this.window();
  }

  async window() {
    if (!this.parts) return;
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
    if (!this.n) { this.window_box.replaceChildren(el("p", { class: "quiet" }, `there is no window in ${this.split}`)); return; }
    if (this.number === null) this.number = Math.floor(Math.random() * this.n);
    try {
      const found = await ask("splits/window", { run: this.run, split: this.split, number: this.number }, { signal });
      state.write("splits", { run: this.run, split: this.split, window: this.number });
      const told = [`window ${counted(found.number)} of ${counted(found.n)}`, found.id, found.time && `first target ${found.time}`, found.padded && `${counted(found.padded)} rows padded`, found.static.length && `${counted(found.static.length)} static attributes`];
      const figures = el("div", { class: "side" });
      this.window_box.replaceChildren(el("p", { class: "quiet" }, told.filter(Boolean).join(" · "), ` · `, el("a", { href: state.written("series", { id: found.id }) }, "this series")), figures);
      const parts = [["inputs, scaled", found.inputs], ["targets, scaled", found.targets], ["known in advance, scaled", found.future]].filter(([, lines]) => lines.length);
      figures.append(...parts.map(([name, lines]) => figure_of(name, lines))); // all of them, so that each has its width
      this.plots = parts.map(([, lines], at) => plot(figures.children[at], lines.slice(0, MOST_LINES)));
      window.zstoreView.told("window", found);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.window_box.replaceChildren(failure(error));
    }
  }

  key(name) {
    const keys = { r: () => this.another(), ArrowLeft: () => this.beside(-1), ArrowRight: () => this.beside(1) };
    if (!keys[name] || !this.parts) return false;
    keys[name]();
    return true;
  }

  destroy() {
    this.gone = true;
    this.asking?.abort();
    this.hint.remove();
    for (const plot of this.plots) plot.destroy();
  }
}

function figure_of(name, lines) {
  const shown = lines.slice(0, MOST_LINES);
  return el("figure", { class: "chart" }, el("div", { class: "title" }, name, el("span", { class: "quiet" }, lines.length > shown.length ? `, the first ${shown.length} of ${lines.length}` : "")),
    el("figcaption", {}, shown.map((line, at) => [el("span", { class: "dot", style: { background: colour(at) } }), `${line.name} `]).flat()));
}

function plot(figure, lines) {
  const axis = axes_base();
  return new uPlot({
    width: Math.max(figure.clientWidth, 220), height: 190, padding: [10, 16, 0, 0], legend: { show: false }, scales: { x: { time: false } }, axes: [{ ...axis, size: 28 }, { ...axis, size: 50 }],
    series: [{}, ...lines.map((line, at) => ({ stroke: colour(at), width: 1.25, points: { show: line.x.length < 60, size: 4 } }))],
  }, [lines[0].x, ...lines.map((line) => line.y)], figure);
}

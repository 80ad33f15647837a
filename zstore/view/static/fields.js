// Fields: a scrubber over the frames of a series, or slices of a volume in three planes, with channels beside them.

import { address, ask } from "./api.js";
import { Charts } from "./chart.js";
import { moment } from "./clock.js";
import { counted, el, failure, number } from "./dom.js";
import { first_channels } from "./series.js";
import * as state from "./state.js";

export const title = "Fields";

const FIRST_PICTURES = 8;

export async function show(page, overview, at) {
  const view = new View(page, overview, at);
  await view.begin();
  return view;
}

// Values of a series that has one row.
function one_row({ charts }) {
  const told = ({ lines, categories }) => { const value = lines[0].y.find((own) => own !== null); return value === undefined ? "–" : categories ? categories[value] : number(value); };
  return el("table", {}, el("tbody", {}, charts.map((chart) => el("tr", {}, el("td", {}, chart.name), el("td", {}, told(chart), el("span", { class: "quiet" }, chart.units ? ` ${chart.units}` : ""))))));
}

class View {
  constructor(page, overview, at) {
    Object.assign(this, { page, overview });
    this.names = overview.fields.filter((field) => !field.is_grid).map((field) => field.name);
    this.field = this.names.includes(at.one("field")) ? at.one("field") : this.names[0];
    this.id = at.one("id");
    this.row = at.number("row") ?? 0;
    this.places = {};
    this.keys = "← → a row, page up or down ten, space play";
  }

  async begin() {
    if (!this.names.length) { this.page.append(el("p", { class: "quiet" }, "There are no fields to show.")); return; }
    if (!this.id) this.id = (await ask("table", { n: 1 })).lines[0]?.id;
    this.images = [];
    if (!this.id) { this.page.append(el("p", { class: "quiet" }, "There is no series in it yet.")); return; }
    this.series = el("input", { type: "search", value: this.id, "aria-label": "id of the series", onchange: () => this.to(this.series.value) });
    this.select = el("select", { "aria-label": "field", onchange: () => { this.field = this.select.value; this.open(); } },
      this.names.map((name) => el("option", { value: name, selected: name === this.field }, name)));
    this.scrubber = el("div", { class: "row" });
    this.slider = el("input", { type: "range", min: 0, value: this.row, "aria-label": "row", oninput: () => this.go(Number(this.slider.value)) });
    this.when = el("span", { class: "quiet" });
    this.pictures = el("div", { class: "side" });
    this.box = el("div", {});
    this.page.append(
      el("div", { class: "row" }, el("label", {}, "series ", this.series), this.select, el("button", { onclick: () => this.beside(-1) }, "earlier series"), el("button", { onclick: () => this.beside(1) }, "next series")),
      this.scrubber, el("div", { class: "beside" }, this.pictures, this.box));
    this.scrubber.append(this.slider, el("button", { onclick: () => this.play() }, "play"), this.when);
    this.charts = new Charts(this.box, this.overview, { onpick: (seconds) => this.pick(seconds) });
    await this.open();
  }

  beside(by) {
    const next = by < 0 ? this.about?.before : this.about?.after;
    if (next) this.to(next);
  }

  to(id) {
    this.id = id;
    this.series.value = id;
    this.row = 0;
    this.open();
  }

  async open() {
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    try {
      this.about = null;
      this.about = await ask("field", { id: this.id, field: this.field }, { signal });
      this.slider.hidden = this.slider.nextSibling.hidden = this.about.n < 2;
      this.slider.max = Math.max(this.about.n - 1, 0);
      this.row = Math.min(this.row, Math.max(this.about.n - 1, 0));
      this.cuts();
      const channels = first_channels(this.overview, FIRST_PICTURES);
      this.charts.clear();
      if (channels.length && this.about.n) {
        this.answer = await ask("series", { id: this.id, channel: channels, points: this.charts.points }, { signal });
        if (this.about.n > 1) this.charts.draw(this.answer);
        else this.box.append(one_row(this.answer));
        window.zstoreView.told("series", this.answer);
      }
      this.go(this.row);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.charts.clear();
      this.pictures.replaceChildren(failure(error));
    }
  }

  // One picture of an image, three of a volume, each with a slider along its axis.
  cuts() {
    const own = this.about.is_coloured ? this.about.axes.slice(0, -1) : this.about.axes;
    const planes = own.length > 2 ? own.slice(-3) : [null];
    this.images = planes.map((axis) => {
      const image = el("img", { class: "frame", alt: `${this.field}${axis ? ` along ${axis}` : ""}` });
      const why = el("span", {});
      image.addEventListener("error", () => this.explain(image, why));
      image.addEventListener("load", () => { why.textContent = ""; });
      const length = axis ? this.about.lengths[this.about.axes.indexOf(axis)] : 0;
      if (axis && !(this.places[axis] < length)) this.places[axis] = Math.floor(length / 2);
      const told = el("span", { class: "quiet" });
      const slider = axis ? el("input", { type: "range", min: 0, max: length - 1, value: this.places[axis], "aria-label": axis, oninput: () => { this.places[axis] = Number(slider.value); this.draw(); } }) : null;
      return { axis, image, told, box: el("figure", {}, image, slider, told, why) };
    });
    this.pictures.replaceChildren(...this.images.map((each) => each.box));
  }

  // Why there is no picture, below its place.
  async explain(image, why) {
    const { src } = image;
    const response = await fetch(src).catch(() => null);
    const error = !response ? "The server does not answer." : response.ok ? "The browser cannot show this picture." : (await response.json()).error;
    if (image.src === src) why.textContent = ` ${error}`;
  }

  go(row) {
    if (!this.about) return;
    this.row = Math.min(Math.max(row, 0), Math.max(this.about.n - 1, 0));
    this.slider.value = this.row;
    this.draw();
  }

  draw() {
    const { id, field, row } = this;
    for (const { axis, image, told } of this.images) {
      image.src = address("frame", { id, field, row, axis, at: axis ? this.places[axis] : null });
      told.textContent = axis ? `${axis} ${this.places[axis]}` : "";
    }
    this.told_when(row, this.about.x?.[row] ?? null);
    if (!this.about.x) this.ask_when(id, row);
    if (!this.playing && this.page.isConnected) state.write("fields", { id, field, row });
    window.zstoreView.told("field", { ...this.about, row });
  }

  told_when(row, seconds) {
    const when = seconds === null ? "" : `, ${this.overview.is_dated ? "" : "step "}${moment(seconds)}`;
    this.when.textContent = `row ${counted(row)} of ${counted(this.about.n)}${when}${this.about.n_present < this.about.n ? ` · ${counted(this.about.n_present)} rows have a value` : ""}`;
    this.charts.point(seconds);
  }

  // Of a long series times are asked for one by one.
  async ask_when(id, row) {
    const found = await ask("row", { id, row }).catch(() => null);
    if (found && this.id === id && this.row === row && this.about) this.told_when(row, found.x);
  }

  async pick(seconds) {
    if (!this.about) return;
    if (!this.about.x) {
      const { id } = this;
      const found = await ask("row", { id, second: seconds }).catch(() => null);
      if (found && this.id === id) this.go(found.row);
      return;
    }
    const distance = this.about.x.map((own) => Math.abs(own - seconds));
    this.go(distance.indexOf(Math.min(...distance)));
  }

  // A row every 80 ms, or as soon as the pictures of the one before are there.
  play() {
    if (this.playing) {
      clearInterval(this.playing);
      this.playing = null;
      this.go(this.row);
      return;
    }
    this.playing = setInterval(() => {
      if (!this.images.every(({ image }) => image.complete)) return;
      if (this.row + 1 < (this.about?.n ?? 0)) this.go(this.row + 1); else this.play();
    }, 80);
  }

  key(name) {
    const keys = { ArrowLeft: () => this.go(this.row - 1), ArrowRight: () => this.go(this.row + 1), PageUp: () => this.go(this.row - 10), PageDown: () => this.go(this.row + 10), " ": () => this.play() };
    if (!keys[name] || !this.about) return false;
    keys[name]();
    return true;
  }

  destroy() {
    clearInterval(this.playing);
    this.asking?.abort();
    this.charts?.destroy();
  }
}

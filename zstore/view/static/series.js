// Series: a table to find them in, and the channels of those that are chosen over time.

import { ask } from "./api.js";
import { Charts } from "./chart.js";
import { moment } from "./clock.js";
import { colour, counted, el, failure, number, plural, share } from "./dom.js";
import * as state from "./state.js";

export const title = "Series";

const PAGE = 100;
const MOST_SERIES = 12;
const MOST_CHIPS = 60;
const MOST_CHANNELS = 64; // and 288 lines in all: see traces.py
const MOST_LINES = 288;
const FIRST_PICTURES = 4;

export async function show(page, overview, at) {
  const view = new View(page, overview, at);
  await view.begin();
  return view;
}

// What can be written into the field: a number and a word of this store, if it has them.
function hint({ statics }) {
  const examples = [statics.find((each) => !each.is_word), statics.find((each) => each.is_word)].filter(Boolean);
  return ["find ids", ...examples.map((each) => (each.is_word ? `${each.name}=word` : `${each.name}>1`)), "missing>0.1"].join(", ");
}

// The first channels and vectors, as many as fit into so many pictures.
export function first_channels({ channels }, n_pictures) {
  const whole = channels.slice(0, n_pictures).map((channel) => channel.channels);
  return whole.flat().slice(0, MOST_CHANNELS);
}

class View {
  constructor(page, overview, at) {
    Object.assign(this, { page, overview });
    this.ids = at.many("id");
    this.channels = at.many("channel");
    this.start = at.time("start");
    this.stop = at.time("stop");
    this.query = at.one("q");
    this.sort = at.one("sort", "id");
    this.down = at.one("down") === "1";
    this.first = at.number("first") ?? 0;
    this.keys = "/ find, j k next series, ← → move, + − zoom, 0 all";
    const vectors = overview.channels.map((channel) => channel.channels);
    this.known = vectors.flat();
    if (!this.channels.length) this.channels = first_channels(overview, FIRST_PICTURES);
    this.marks = [];
  }

  async begin() {
    this.search = el("input", { type: "search", value: this.query, placeholder: hint(this.overview), "aria-label": "find series", oninput: () => this.find() });
    this.count = el("span", { class: "quiet" });
    this.table = el("div", { class: "tall" });
    this.more = el("div", { class: "row" });
    this.choice = el("div", { class: "chips" });
    this.about = el("div", { class: "quiet" });
    this.box = el("div", {});
    this.pick = el("div", { class: "chips" });
    this.page.append(
      el("div", { class: "row" }, this.search, this.count), this.table, this.more,
      el("h2", {}, "Over time"), this.choice, this.pick,
      el("div", { class: "row" },
        el("button", { onclick: () => this.zoom(2) }, "− wider"), el("button", { onclick: () => this.zoom(0.5) }, "+ closer"),
        el("button", { onclick: () => this.move(-0.5) }, "←"), el("button", { onclick: () => this.move(0.5) }, "→"),
        el("button", { onclick: () => this.look(null, null) }, "all"), this.about),
      this.box,
    );
    this.charts = new Charts(this.box, this.overview, { onzoom: (low, high) => this.look(low, high) });
    const doctor = await ask("doctor").catch(() => ({}));
    this.findings = doctor.findings || [];
    this.lines = [];
    await this.list();
    if (!this.ids.length && this.lines.length) this.ids = [this.lines[0].id];
    await this.draw();
  }

  write() {
    if (!this.page.isConnected) return; // another view of this part has the address by now
    const { ids, channels, start, stop, query, sort, down, first } = this;
    state.write("series", { id: ids, channel: channels, start, stop, q: query, sort: sort === "id" ? "" : sort, down: down ? 1 : "", first: first || "" });
  }

  find() {
    clearTimeout(this.late);
    this.late = setTimeout(() => { this.query = this.search.value; this.first = 0; this.list(); }, 150);
  }

  async list() {
    this.listing?.abort();
    const { signal } = (this.listing = new AbortController());
    try {
      const { query, sort, down, first } = this;
      const found = await ask("table", { q: query, sort, down: down ? 1 : "", first, n: PAGE }, { signal });
      window.zstoreView.told("table", found);
      this.lines = found.lines;
      this.count.textContent = found.n < found.n_all ? `${counted(found.n)} of ${counted(found.n_all)} series` : `${counted(found.n)} series`;
      this.table.replaceChildren(this.rows(found));
      this.paging(found);
      this.write();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.lines = [];
      this.count.textContent = "";
      this.more.replaceChildren();
      this.table.replaceChildren(failure(error));
    }
  }

  rows(found) {
    if (!found.lines.length) return el("p", { class: "quiet" }, "none");
    const names = Object.keys(found.lines[0]);
    const isNumber = (name) => !["id", "first", "last"].includes(name) && found.lines.every((line) => typeof line[name] !== "string");
    const head = names.map((name) => {
      const arrow = this.sort === name ? (this.down ? " ↓" : " ↑") : "";
      const aria = this.sort === name ? (this.down ? "descending" : "ascending") : "none";
      return el("th", { class: isNumber(name) ? "number" : "", "aria-sort": aria }, el("button", { onclick: () => this.sorted(name) }, name.replace(/^static:/, "") + arrow));
    });
    const cell = (name, value) => {
      if (name === "first" || name === "last") return moment(value);
      if (name === "missing") return share(value);
      if (name === "rows") return counted(value);
      return typeof value === "number" ? number(value) : value ?? "–";
    };
    const body = found.lines.map((line) => el("tr", {
      "data-id": line.id, tabindex: 0, class: this.ids.includes(line.id) ? "chosen" : "",
      onclick: (event) => this.choose(line.id, event.shiftKey || event.ctrlKey || event.metaKey),
      onkeydown: (event) => { if (event.key === "Enter") this.choose(line.id, event.shiftKey); },
    }, names.map((name) => el("td", { class: isNumber(name) ? "number" : "", title: name === "id" ? line.id : null }, cell(name, line[name])))));
    return el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body));
  }

  paging(found) {
    const last = Math.max(Math.ceil(found.n / PAGE) - 1, 0) * PAGE;
    if (found.n <= PAGE) { this.more.replaceChildren(); return; }
    const go = (first) => () => { this.first = Math.min(Math.max(first, 0), last); this.list(); };
    this.more.replaceChildren(
      el("button", { onclick: go(this.first - PAGE) }, "earlier"), el("button", { onclick: go(this.first + PAGE) }, "later"),
      el("span", { class: "quiet" }, `${counted(this.first + 1)} to ${counted(Math.min(this.first + PAGE, found.n))} of ${counted(found.n)}; shift-click to compare series`));
  }

  sorted(name) {
    this.down = this.sort === name ? !this.down : name !== "id";
    this.sort = name;
    this.first = 0;
    this.list();
  }

  choose(id, beside) {
    if (!beside) this.ids = [id];
    else if (this.ids.includes(id)) this.ids = this.ids.filter((other) => other !== id);
    else this.ids = [...this.ids, id].slice(-MOST_SERIES);
    if (!this.ids.length) this.ids = [id];
    if (!beside) [this.start, this.stop] = [null, null];
    this.recolour();
    this.draw();
  }

  recolour() {
    for (const row of this.table.querySelectorAll("tr[data-id]")) row.className = this.ids.includes(row.dataset.id) ? "chosen" : "";
  }

  look(low, high) {
    [this.start, this.stop] = [low, high];
    this.draw();
  }

  zoom(factor) {
    if (!this.answer) return;
    const { start, stop } = this.answer;
    const [middle, half] = [(start + stop) / 2, ((stop - start) / 2) * factor];
    this.look(middle - half, middle + half);
  }

  move(by) {
    if (!this.answer) return;
    const { start, stop } = this.answer;
    const step = (stop - start) * by;
    this.look(start + step, stop + step);
  }

  chips() {
    this.choice.replaceChildren(...this.ids.map((id, number_) => el("button", { class: "chip", title: "leave out", onclick: () => this.choose(id, true) },
      el("span", { class: "dot", style: { background: colour(number_) } }), id)));
    const all = this.overview.channels;
    const shown = all.slice(0, MOST_CHIPS);
    const chip = (text, names, title) => el("button", { class: "chip", title, "aria-pressed": names.every((name) => this.channels.includes(name)) ? "true" : "false", onclick: () => this.turn(names) }, text);
    const vectors = shown.filter(({ channels }) => channels.length > 1 && channels.length <= MOST_CHANNELS && channels.some((name) => this.channels.includes(name)));
    this.pick.replaceChildren(
      ...shown.map(({ name, channels }) => chip(channels.length > 1 ? `${name} × ${channels.length}` : name, channels)),
      ...(all.length > shown.length ? [el("span", { class: "quiet" }, `and ${counted(all.length - shown.length)} more, by channel= in the address`)] : []),
      ...vectors.map(({ name, channels }) => el("details", { class: "chips" }, el("summary", {}, `channels of ${name}`), channels.map((own) => chip(own, [own])))));
  }

  // Adds channels to what is drawn, or takes them away where all of them are there.
  turn(names) {
    const have = names.every((name) => this.channels.includes(name));
    const wanted = have ? this.channels.filter((other) => !names.includes(other)) : [...this.channels, ...names];
    this.channels = this.known.filter((other) => wanted.includes(other)).slice(0, MOST_CHANNELS);
    this.draw();
  }

  async draw() {
    this.chips();
    this.write();
    if (this.asking) this.asking.abort();
    this.asking = new AbortController();
    if (!this.ids.length || !this.channels.length) {
      this.charts.clear();
      this.about.textContent = this.known.length ? "" : "no channels: what this store holds is under Fields";
      return;
    }
    try {
      const { ids, start, stop } = this;
      const channels = this.channels.slice(0, Math.floor(MOST_LINES / ids.length));
      const answer = await ask("series", { id: ids, channel: channels, start, stop, points: this.charts.points }, { signal: this.asking.signal });
      if (!this.page.isConnected) return;
      this.answer = answer;
      const marks = this.findings.filter((finding) => finding.span && ids.includes(finding.series));
      this.charts.draw(answer, marks);
      this.told(answer, marks);
      window.zstoreView.told("series", answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.charts.clear();
      this.about.textContent = "";
      this.box.replaceChildren(failure(error));
    }
  }

  told(answer, marks) {
    const lines = answer.charts.flatMap((chart) => chart.lines);
    const rows = Math.max(0, ...lines.map((line) => line.n_rows));
    const parts = [`${moment(answer.start)} to ${moment(answer.stop)}`, plural(rows, "row")];
    if (lines.some((line) => !line.whole)) parts.push("lowest and highest value of every two pixels");
    if (lines.some((line) => line.n_read < line.n_rows && !line.whole)) parts.push("of evenly spread blocks, for there are too many rows");
    const infinite = lines.reduce((sum, line) => sum + line.n_infinite, 0);
    if (infinite) parts.push(`${counted(infinite)} infinite values left out`);
    if (!rows) parts.push("nothing here, press 0 for all");
    else if (lines.every((line) => line.y.every((value) => value === null))) parts.push("no values here");
    if (answer.charts.length < this.channels.length) parts.push(`the first ${answer.charts.length} channels, for there are ${MOST_LINES} lines at most`);
    if (marks.length) parts.push(`${plural(marks.length, "finding")} shaded`);
    this.about.textContent = parts.join(" · ");
  }

  step(by) {
    const at = this.lines.findIndex((line) => line.id === this.ids[0]);
    const next = this.lines[at + by];
    if (next) this.choose(next.id, false);
  }

  key(name) {
    const keys = {
      "/": () => this.search.focus(), j: () => this.step(1), k: () => this.step(-1), 0: () => this.look(null, null),
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2),
      ArrowLeft: () => this.move(-0.25), ArrowRight: () => this.move(0.25),
    };
    if (!keys[name] || (!this.answer && name !== "/")) return false;
    keys[name]();
    return true;
  }

  destroy() {
    clearTimeout(this.late);
    this.listing?.abort();
    this.asking?.abort();
    this.charts.destroy();
  }
}

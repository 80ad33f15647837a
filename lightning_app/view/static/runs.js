// Runs: losses as they grow, forecasts beside what was observed, scores by series, two runs side by side, rollouts.

import { address, ask } from "/static/api.js";
import { axes_base, Charts } from "/static/chart.js";
import { colour, counted, css, el, failure, number, plural, tip } from "/static/dom.js";
import * as state from "/static/state.js";
import { Kept } from "/panels/runs/kept.js";
import { map } from "/static/store.js";

export const title = "Runs";

const POLL_MS = 3000;
const CURVE_H = 160;
const WORST = 50;
const BEST_IS_LARGE = ["nse", "accuracy"];

export async function show(page, overview, at) {
  const view = new View(page, overview, at);
  await view.begin();
  return view;
}

class View {
  constructor(page, overview, at) {
    Object.assign(this, { page, overview });
    this.names = at.many("run");
    this.target = at.one("target");
    this.id = at.one("id");
    this.step = at.number("step") ?? 1;
    this.window = at.number("window");
    this.is_told = at.one("step") !== "" || this.window !== null; // what is drawn, by the address
    this.start = at.time("start");
    this.stop = at.time("stop");
    this.score = at.one("score", "rmse");
    this.keys = "j k next series, ← → move or next window, 0 all";
    this.kept = new Kept(this, at);
    this.hint = tip();
    this.plots = [];
  }

  async begin() {
    this.runs = await ask("runs/list");
    const known = this.runs.map((run) => run.name);
    this.names = this.names.filter((name) => known.includes(name));
    if (!this.names.length) this.names = known.slice(0, 2);
    this.list = el("div", { class: "scroll" });
    this.curves = el("div", { class: "side" });
    this.charts_box = el("div", { class: "pair" });
    this.scores_box = el("div", {});
    this.kept_box = el("div", {});
    this.films = el("div", {});
    this.controls = el("div", { class: "row" });
    this.about = el("div", { class: "quiet" });
    this.page.append(el("h2", {}, "Runs"), this.list, el("h2", {}, "Losses and metrics"), this.curves,
      el("h2", {}, "Forecasts"), this.controls, this.about, this.charts_box, this.scores_box, this.kept_box, this.films);
    this.tables();
    await this.losses();
    const poll = async () => { await this.losses(); await this.look_again(); if (!this.gone) this.timer = setTimeout(poll, POLL_MS); };
    this.timer = setTimeout(poll, POLL_MS);
    this.charts = this.names.map((_, position) => {
      const box = el("div", {});
      this.charts_box.append(box);
      return new Charts(box, this.overview, { onzoom: (low, high) => this.look(low, high), position });
    });
    this.show_films();
    await Promise.all([this.predictions(), this.kept.begin()]);
  }

  tables() {
    const names = [...new Set(this.runs.flatMap((run) => Object.keys(run.scores)))];
    const rows = this.runs.map((run) => el("tr", { class: this.names.includes(run.name) ? "chosen" : "", "data-id": run.name, tabindex: 0, onclick: () => this.turn(run.name), onkeydown: (event) => { if (event.key === "Enter") this.turn(run.name); } },
      el("td", {}, run.name, run.error ? el("div", { class: "error" }, run.error) : null), el("td", {}, run.model), names.map((name) => el("td", { class: "number" }, number(run.scores[name])))));
    this.list.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ["run", "model"].map((name) => el("th", {}, name)), names.map((name) => el("th", { class: "number" }, `test ${name}`)))), el("tbody", {}, rows)));
  }

  turn(name) {
    const has = this.names.includes(name);
    this.names = has ? this.names.filter((other) => other !== name) : [...this.names, name].slice(-2);
    if (!this.names.length) this.names = [name];
    this.write();
    dispatchEvent(new HashChangeEvent("hashchange"));
  }

  write() {
    if (!this.page.isConnected) return; // another view of this part has the address by now
    const { names, target, id, step, window: window_, start, stop, score } = this;
    state.write("runs", { run: names, target, id, step: step === 1 ? "" : step, window: window_, start, stop, score: score === "rmse" ? "" : score, ...this.kept.state() });
  }

  // Scores, predictions, films or kept forecasts that have come since are shown.
  async look_again() {
    const runs = await ask("runs/list").catch(() => this.runs);
    if (this.gone || JSON.stringify(runs) === JSON.stringify(this.runs)) return;
    this.gone = true;
    dispatchEvent(new HashChangeEvent("hashchange"));
  }

  async losses() {
    try {
      const found = await Promise.all(this.names.map((run) => ask("runs/curves", { run })));
      if (this.gone) return;
      const text = JSON.stringify(found.map((each) => Object.entries(each).map(([name, own]) => [name, own.step.length])));
      if (text === this.drawn) return;
      this.drawn = text;
      window.zstoreView.told("curves", found);
      const names = [...new Set(found.flatMap((each) => Object.keys(each)))].filter((name) => !name.startsWith("perf/")).sort((a, b) => rank(a) - rank(b)).slice(0, 8);
      for (const plot of this.plots) plot.destroy();
      this.plots = [];
      this.curves.replaceChildren();
      if (!names.length) this.curves.append(el("p", { class: "quiet" }, "none yet: they are in logs/metrics.csv of a run, which CSVLogger writes"));
      const figures = names.map((name) => this.figure(name)); // all of them, so that each has its width
      this.curves.append(...figures);
      this.plots = names.map((name, at) => this.curve(figures[at], found.map((each) => each[name] || { step: [], value: [] })));
    } catch (error) {
      this.curves.replaceChildren(failure(error));
    }
  }

  figure(name) {
    return el("figure", { class: "chart" }, el("div", { class: "title" }, name, ...this.names.map((run, at) => [" ", el("span", { class: "dot", style: { background: colour(at) } }), el("span", { class: "quiet" }, run)]).flat()));
  }

  curve(figure, lines) {
    const axis = axes_base();
    const data = lines.length === 1 ? [lines[0].step, lines[0].value] : uPlot.join(lines.map((line) => [line.step, line.value]));
    const width = Math.max(figure.clientWidth, 220);
    return new uPlot({
      width, height: CURVE_H, legend: { show: false }, scales: { x: { time: false } },
      padding: [10, 16, 0, 0],
      axes: [{ ...axis, size: 28 }, { ...axis, size: 60, values: (_, ticks) => ticks.map(number) }],
      series: [{}, ...lines.map((line, at) => ({ stroke: colour(at), width: 1.5, spanGaps: true, points: { show: line.step.length < 40, size: 5 } }))],
    }, data, figure);
  }

  async predictions() {
    const able = this.names.filter((name) => this.runs.find((run) => run.name === name).has_predictions);
    this.able = able;
    if (!able.length) {
      this.controls.replaceChildren(el("p", { class: "quiet" }, "none yet: python -m lightning_app predict --config … writes them"));
      return;
    }
    try {
      this.known = await ask("runs/targets", { run: able[0] });
      if (!this.known.targets.length) throw new Error("These predictions have no targets of this store.");
      if (!this.known.targets.includes(this.target)) [this.target] = this.known.targets;
      if (!this.id) [this.id] = this.known.ids;
      if (this.known.n_windows <= 1 && !this.is_told) this.window = 0; // one time is no line
      this.control();
      await Promise.all([this.draw(), this.scores()]);
    } catch (error) {
      this.controls.replaceChildren(failure(error));
    }
  }

  control() {
    const { targets, n_steps } = this.known;
    const target = el("select", { "aria-label": "target", onchange: () => { this.target = target.value; this.draw(); this.scores(); } }, targets.map((name) => el("option", { value: name, selected: name === this.target }, name)));
    this.series = el("input", { type: "search", value: this.id, "aria-label": "id of the series", onchange: () => { this.id = this.series.value; this.draw(); } });
    const step = el("input", { type: "range", min: 1, max: n_steps, value: this.step, "aria-label": "steps ahead", oninput: () => { this.step = Number(step.value); told.textContent = `${plural(this.step, "step")} ahead`; this.draw(); } });
    const told = el("span", { class: "quiet" }, `${plural(this.step, "step")} ahead`);
    const ways = el("select", { "aria-label": "what is drawn", onchange: () => { this.window = ways.value === "window" ? 0 : null; this.control(); this.draw(); } },
      el("option", { value: "lead", selected: this.window === null }, "all forecasts so many steps ahead"), el("option", { value: "window", selected: this.window !== null }, "one forecast, all its steps"));
    const window_ = [el("button", { onclick: () => this.next(-1) }, "earlier"), el("button", { onclick: () => this.next(1) }, "later")];
    this.controls.replaceChildren(el("label", {}, "series ", this.series), target, ways, ...(this.window === null ? [step, told, el("button", { onclick: () => this.look(null, null) }, "all")] : window_));
  }

  async draw() {
    this.write();
    const { id, target, step, window: window_, start, stop } = this;
    const before = 3 * (this.known?.n_steps || 1) + 24;
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    try {
      const kept = (error) => { if (error.name === "AbortError") throw error; return { error }; };
      const answers = await Promise.all(this.names.map((run) => (this.able.includes(run) ? ask("runs/forecast", { run, id, target, step: Math.min(step, this.known.n_steps), window: window_, before, start, stop, points: this.charts[0].points }, { signal }).catch(kept) : null)));
      answers.forEach((answer, at) => {
        if (!answer?.charts) {
          this.charts[at].clear();
          if (answer) this.charts[at].box.append(failure(`${this.names[at]}: ${answer.error.message}`));
          answers[at] = null;
          return;
        }
        answer.charts[0].name = this.names.length > 1 ? `${target} – ${this.names[at]}` : target;
        this.charts[at].draw(answer);
      });
      this.answers = answers;
      this.n_windows = answers.find(Boolean)?.n_windows;
      this.about.replaceChildren("observed ", el("span", { class: "dot", style: { background: colour(0) } }), " forecast ", el("span", { class: "dot", style: { background: colour(1) } }),
        window_ === null ? "" : ` · forecast ${counted(window_ + 1)} of ${counted(this.n_windows || 0)}`, " · ", el("a", { href: state.written("series", { id, channel: target }) }, "this series in the store"));
      window.zstoreView.told("forecast", answers);
    } catch (error) {
      if (error.name !== "AbortError") this.about.replaceChildren(failure(error));
    }
  }

  async scores() {
    try {
      const { target } = this;
      const found = await Promise.all(this.able.map((run) => ask("runs/scores", { run, target })));
      const scores = Object.keys(found[0].scores);
      if (!scores.includes(this.score)) [this.score] = scores;
      const column = (score, run) => `${score} ${target} ${run}`;
      const { lines } = await ask("table", { sort: column(this.score, this.able[0]), down: BEST_IS_LARGE.includes(this.score) ? "" : 1, n: WORST });
      if (this.target !== target || this.gone) return; // another one was chosen meanwhile
      this.lines = lines.filter((line) => line[column(this.score, this.able[0])] !== null);
      if (!this.lines.length) {
        this.scores_box.replaceChildren(el("p", { class: "quiet" }, `There are no scores: nothing was observed of what was forecast of ${target}.`));
        window.zstoreView.told("scores", found);
        return;
      }
      const choose = el("select", { "aria-label": "score", onchange: () => { this.score = choose.value; this.write(); this.scores(); } }, scores.map((name) => el("option", { value: name, selected: name === this.score }, name)));
      const head = ["series", ...this.able.flatMap((run) => scores.map((name) => `${name}${this.able.length > 1 ? ` ${run}` : ""}`))];
      const rows = this.lines.map((line) => el("tr", { "data-id": line.id, tabindex: 0, class: line.id === this.id ? "chosen" : "", onclick: () => this.to(line.id), onkeydown: (event) => { if (event.key === "Enter") this.to(line.id); } },
        el("td", { title: line.id }, line.id), this.able.flatMap((run) => scores.map((name) => el("td", { class: "number" }, number(line[column(name, run)]))))));
      const table = el("div", { class: "tall", "aria-label": "series, worst first" }, el("table", {}, el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { class: at ? "number" : "" }, name)))), el("tbody", {}, rows)));
      this.scores_box.replaceChildren(el("h2", {}, "Series, worst first"), el("div", { class: "row" }, choose, el("span", { class: "quiet" }, `of ${this.target}, over all windows and steps`)), el("div", { class: "side" }, table, await this.map(found[0].scores)));
      window.zstoreView.told("scores", found);
    } catch (error) {
      this.scores_box.replaceChildren(failure(error));
    }
  }

  async map(scores) {
    if (!this.overview.has_places) return "";
    const found = await ask("places");
    const values = found.positions.map((position) => scores[this.score][position]);
    const seen = values.filter((value) => value !== null).sort((a, b) => a - b);
    const [low, high] = [seen[Math.floor(0.05 * seen.length)], seen[Math.floor(0.95 * (seen.length - 1))]];
    const tint = (at) => (values[at] === null ? css("--edge") : ramp((values[at] - low) / (high - low || 1)));
    if (!seen.length) return "";
    const figure = map(found, Math.min(this.scores_box.clientWidth || 600, 640), this.hint, tint, (at) => `${found.ids[at]}: ${number(values[at])}`);
    figure.append(el("figcaption", {}, `${this.score} from ${number(low)} (dark) to ${number(high)} (bright)`));
    return figure;
  }

  show_films() {
    const own = this.runs.filter((run) => this.names.includes(run.name) && (run.films.length || run.rollout.n));
    if (!own.length) return;
    const films = own.flatMap((run) => run.films.map((name) => el("figure", {}, el("img", { class: "frame", src: address("runs/film", { run: run.name, name }), alt: `${run.name} ${name}` }), el("figcaption", {}, `${run.name}: ${name.replace(/^rollout_|\.gif$/g, "")}${episode(run.rollout.films?.[name])}`))));
    this.films.replaceChildren(el("h2", {}, "Rollouts"), ...own.filter((run) => run.rollout.n).map((run) => el("p", {}, rollout(run))), el("div", { class: "side" }, films));
    window.zstoreView.told("films", own);
  }

  to(id) {
    this.id = id;
    if (this.window !== null) this.window = 0;
    this.series.value = id;
    for (const row of this.scores_box.querySelectorAll("tr[data-id]")) row.className = row.dataset.id === id ? "chosen" : "";
    this.draw();
  }

  look(low, high) {
    [this.start, this.stop] = [low, high];
    this.draw();
  }

  next(by) {
    const last = Math.max((this.n_windows || 1) - 1, 0);
    this.window = Math.min(Math.max(this.window + by, 0), last);
    this.draw();
  }

  key(name) {
    const at = (this.lines || []).findIndex((line) => line.id === this.id);
    const step = (by) => { const next = (this.lines || [])[at + by]; if (next) this.to(next.id); };
    const move = (by) => {
      if (this.window !== null) { this.next(by); return; }
      const shown = this.answers?.find(Boolean);
      if (shown) this.look(shown.start + ((shown.stop - shown.start) / 4) * by, shown.stop + ((shown.stop - shown.start) / 4) * by);
    };
    const keys = { j: () => step(1), k: () => step(-1), 0: () => this.look(null, null), ArrowLeft: () => move(-1), ArrowRight: () => move(1) };
    if (!keys[name] || !this.able?.length) return false;
    keys[name]();
    return true;
  }

  destroy() {
    this.gone = true;
    clearTimeout(this.timer);
    this.asking?.abort();
    this.hint.remove();
    for (const plot of this.plots) plot.destroy();
    for (const chart of this.charts || []) chart.destroy();
    this.kept.destroy();
  }
}

function rollout({ name, rollout: { n, mean_max_reward, success } }) {
  return `${name}: mean of the maximal reward ${number(mean_max_reward)}, success ${number(success)}, in ${plural(n, "episode")}`;
}

function episode(about) {
  return about ? ` episode, maximal reward ${number(about.max_reward)} in ${plural(about.n_steps, "step")}, seed ${about.seed}` : "";
}

// Losses first, then metrics of validation.
function rank(name) {
  return name === "train/loss" ? 0 : name === "val/loss" ? 1 : name.startsWith("val/") ? 2 : 3;
}

// From dark to bright, told apart by those who do not see all colours (as viridis).
function ramp(share) {
  const stops = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const mix = stops[low].map((value, place) => Math.round(value + (stops[low + 1][place] - value) * (at - low)));
  return `rgb(${mix.join(",")})`;
}

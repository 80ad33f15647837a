// Forecasts of rows to come that runs have kept: what came since, by origin and by lead time, and how good they were.

import { ask } from "/static/api.js";
import { Charts } from "/static/chart.js";
import { moment } from "/static/clock.js";
import { colour, counted, el, failure, number, plural } from "/static/dom.js";

const LAST = 1e9; // the server takes the last origin where there are fewer
const NOT_SHOWN = ["name", "pinball", "n_quantiles", "n_intervals"];

export class Kept {
  // `runs` is the part of the page that this stands in: it has the names of the runs that are looked at.
  constructor(runs, at) {
    this.runs = runs;
    this.id = at.one("kept");
    this.target = at.one("kept_target");
    this.origin = at.number("origin");
    this.lead = at.number("lead");
    this.charts = [];
  }

  state() {
    const { id, target, origin, lead } = this;
    return this.able?.length ? { kept: id, kept_target: target, origin, lead } : {};
  }

  async begin() {
    const box = this.runs.kept_box;
    try {
      const found = await Promise.all(this.runs.names.map((run) => ask("runs/kept", { run })));
      window.zstoreView.told("kept", found);
      if (this.gone) return;
      this.able = this.runs.names.filter((_, at) => found[at].n_forecasts);
      const abouts = found.filter(({ n_forecasts }) => n_forecasts);
      if (!abouts.length) return;
      this.n_steps = Math.max(...abouts.map(({ n_steps }) => n_steps));
      this.targets = [...new Set(abouts.flatMap(({ targets }) => targets))];
      if (!this.targets.includes(this.target)) [this.target] = this.targets;
      if (!this.id) [this.id] = abouts[0].ids;
      if (this.lead === null && this.origin === null) this.origin = LAST;
      this.controls = el("div", { class: "row" });
      this.about = el("div", { class: "quiet" });
      this.charts_box = el("div", { class: "pair" });
      this.scores_box = el("div", {});
      box.replaceChildren(el("h2", {}, "Kept forecasts"), ...abouts.map((about, at) => el("p", {}, `${this.able.length > 1 ? `${this.able[at]}: ` : ""}${summary(about)}`)), this.controls, this.about, this.charts_box, this.scores_box);
      this.charts = this.able.map(() => {
        const own = el("div", {});
        this.charts_box.append(own);
        return new Charts(own, this.runs.overview, { onzoom: (low, high) => this.look(low, high) });
      });
      this.control();
      await Promise.all([this.draw(), this.scores()]);
    } catch (error) {
      box.replaceChildren(el("h2", {}, "Kept forecasts"), failure(error));
    }
  }

  control() {
    const target = el("select", { "aria-label": "target that was forecast", onchange: () => { this.target = target.value; this.draw(); this.scores(); } }, this.targets.map((name) => el("option", { value: name, selected: name === this.target }, name)));
    this.series = el("input", { type: "search", value: this.id, "aria-label": "id of a series that was forecast", onchange: () => { this.id = this.series.value; this.draw(); } });
    const ways = el("select", { "aria-label": "what is drawn of kept forecasts", onchange: () => { [this.origin, this.lead] = ways.value === "origin" ? [LAST, null] : [null, 1]; [this.start, this.stop] = [null, null]; this.control(); this.draw(); } },
      el("option", { value: "origin", selected: this.lead === null }, "one forecast, all its steps"), el("option", { value: "lead", selected: this.lead !== null }, "all forecasts so many steps ahead"));
    const lead = el("input", { type: "range", min: 1, max: this.n_steps, value: this.lead ?? 1, "aria-label": "steps ahead of kept forecasts", oninput: () => { this.lead = Number(lead.value); this.draw(); } });
    this.slider = el("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "origin", oninput: () => { this.origin = Number(this.slider.value); this.draw(); } });
    this.controls.replaceChildren(el("label", {}, "series ", this.series), target, ways, this.lead === null ? this.slider : lead);
  }

  async draw() {
    this.runs.write();
    this.asking?.abort();
    const { signal } = (this.asking = new AbortController());
    const { id, target, lead, start, stop } = this;
    const asked = lead === null ? { origin: this.origin, before: 3 * this.n_steps + 24 } : { step: lead, start, stop, points: this.charts[0].points };
    try {
      const kept = (error) => { if (error.name === "AbortError") throw error; return { error }; };
      const answers = await Promise.all(this.able.map((run) => ask("runs/kept_forecast", { run, id, target, ...asked }, { signal }).catch(kept)));
      answers.forEach((answer, at) => {
        if (answer.error) {
          this.charts[at].clear();
          this.charts[at].box.append(failure(`${this.able[at]}: ${answer.error.message}`));
          return;
        }
        answer.charts[0].name = this.able.length > 1 ? `${target} – ${this.able[at]}` : target;
        this.charts[at].draw(answer);
      });
      const first = answers.find(({ error }) => !error);
      if (first && lead === null) {
        this.slider.max = first.n_origins - 1;
        this.slider.value = this.origin = first.number;
        this.runs.write();
      }
      const told = !first ? "" : lead === null ? ` · forecast ${counted(first.number + 1)} of ${counted(first.n_origins)}, made behind ${moment(first.origin)}` : ` · ${plural(lead, "step")} ahead`;
      this.about.replaceChildren("observed ", el("span", { class: "dot", style: { background: colour(0) } }), " forecast ", el("span", { class: "dot", style: { background: colour(1) } }), told);
      window.zstoreView.told("kept_forecast", answers);
    } catch (error) {
      if (error.name !== "AbortError") this.about.replaceChildren(failure(error));
    }
  }

  async scores() {
    try {
      const { target } = this;
      const found = await Promise.all(this.able.map((run) => ask("runs/kept_scores", { run, target })));
      if (this.target !== target || this.gone) return; // another one was chosen meanwhile
      window.zstoreView.told("kept_scores", found);
      const parts = found.flatMap((own, at) => {
        const name = this.able.length > 1 ? ` of ${this.able[at]}` : "";
        if (!own.all.n) return [el("p", { class: "quiet" }, `Nothing has come yet of what was forecast${name}.`)];
        return [el("h2", {}, `By lead time${name}`), el("div", { class: "scroll" }, by_step(own)), el("h2", {}, `Series, worst first${name}`), el("div", { class: "tall" }, this.worst(own.series))];
      });
      this.scores_box.replaceChildren(...parts);
    } catch (error) {
      this.scores_box.replaceChildren(failure(error));
    }
  }

  worst(series) {
    const rows = series.map((own) => el("tr", { "data-id": own.id, tabindex: 0, onclick: () => this.to(own.id), onkeydown: (event) => { if (event.key === "Enter") this.to(own.id); } },
      el("td", { title: own.id }, own.id), [counted(own.n), number(own.rmse), number(own.mae)].map((text) => el("td", { class: "number" }, text))));
    return table(["series", "values", "rmse", "mae"], rows);
  }

  to(id) {
    this.id = this.series.value = id;
    if (this.lead === null) this.origin = LAST;
    this.draw();
  }

  look(low, high) {
    if (this.lead === null) return;
    [this.start, this.stop] = [low, high];
    this.draw();
  }

  destroy() {
    this.gone = true;
    this.asking?.abort();
    for (const chart of this.charts) chart.destroy();
  }
}

function summary(about) {
  const left_out = about.n_left_out ? `; the newest ones, for ${plural(about.n_left_out, "file")} more would be too many` : "";
  return `${plural(about.n_forecasts, "forecast")} of rows to come: ${counted(about.n_scored)} scored, ${counted(about.n_partly)} in part, ${counted(about.n_waiting)} waiting for what comes${left_out}`;
}

function by_step({ all, by_step: steps }) {
  const names = Object.keys(all).filter((name) => !NOT_SHOWN.includes(name));
  const rows = [{ name: "all", ...all }, ...steps].map((row) => el("tr", {}, el("td", { class: "number" }, String(row.name)), names.map((name) => el("td", { class: "number" }, name === "n" ? counted(row[name]) : number(row[name])))));
  return table(["step", ...names.map((name) => (name === "n" ? "values" : name.replace(/_/g, " ")))], rows);
}

function table(head, rows) {
  return el("table", {}, el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { class: at || name === "step" ? "number" : "" }, name)))), el("tbody", {}, rows));
}

// Lines over time, one picture below the other, which zoom and point together.

import { around, moment, time_axis } from "./clock.js";
import { colour, css, el, number } from "./dom.js";
import { stacked } from "./stacked.js";

const HEIGHT = 160;
const MOST_LETTERS = 18;
const COLOURS = 8;
const ENDS = ["lower", "upper"]; // of intervals: a band, and no line

// Colours of lines that are not series beside each other but what was observed and what was forecast.
const KINDS = { observed: 0, before: 0, forecast: 1, lower: 1, upper: 1 };

// Lines of one channel as uPlot has them: one column of times for all, null where a line has a gap.
function joined(lines) {
  if (lines.length === 1) return [lines[0].x, lines[0].y];
  const tables = lines.map((line) => [line.x, line.y]);
  return uPlot.join(tables, tables.map(() => [0, 2])); // 2: a null of a line stays a gap beside the points of others
}

// Whether a browser can tell the times of a picture apart: its numbers have 53 bits.
function tellable(start, stop) {
  return stop - start > Math.max(Math.abs(start), Math.abs(stop)) * 2 ** -46;
}

// From where to where a picture goes; a single time is in its middle.
export function spanned({ start, stop }) {
  return start < stop ? [start, stop] : [start - around(), start + around()];
}

// From the lowest to the highest value of what is drawn: rows, and lines to those beyond both ends up to there.
function values_range(lines, [start, stop]) {
  let [low, high] = [Infinity, -Infinity];
  const take = (value) => { [low, high] = [Math.min(low, value), Math.max(high, value)]; };
  for (const { x, y } of lines) {
    for (let n = 0; n < x.length; n += 1) {
      if (y[n] === null) continue;
      if (start <= x[n] && x[n] <= stop) take(y[n]);
      if (n === 0 || y[n - 1] === null) continue;
      for (const end of [start, stop]) if (x[n - 1] < end && end < x[n]) take(y[n - 1] + ((y[n] - y[n - 1]) * (end - x[n - 1])) / (x[n] - x[n - 1]));
    }
  }
  return low <= high ? uPlot.rangeNum(low, high, 0.1, true) : [0, 1];
}

export class Charts {
  constructor(box, overview, { onzoom = () => {}, onpick = null }) {
    Object.assign(this, { box, overview, onzoom, onpick });
    this.here = null;
    this.plots = [];
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(box);
  }

  get width() {
    return Math.max(Math.floor(this.box.clientWidth), 240);
  }

  // As many points of a line as the screen has pixels.
  get points() {
    return Math.min(Math.round(this.width * devicePixelRatio), 4000);
  }

  // Draws what /api/series answered; `marks` by id and channel are stretches that a finding is about.
  draw(answer, marks = []) {
    this.clear();
    this.answer = answer;
    const [start, stop] = spanned(answer);
    if (!tellable(start, stop)) {
      this.box.append(el("p", { class: "quiet" }, "These times lie too close together for a browser to tell them apart: zoom out, or use zstore show."));
      return;
    }
    const many = answer.charts.length ? answer.charts[0].lines.length > 1 : false;
    for (const { name, charts } of this.pictures(answer.charts)) {
      const figure = el("figure", { class: "chart", "data-channel": name });
      const value = el("span", { class: "quiet" });
      const about = charts.length > 1 ? ` ${charts.length} channels, each in its own range ` : charts[0].units ? ` ${charts[0].units} ` : " ";
      figure.append(el("div", { class: "title" }, name, el("span", { class: "quiet" }, about), value));
      this.box.append(figure);
      const own = marks.filter((mark) => mark.channel === "" || charts.some((chart) => mark.channel === chart.name || chart.name.startsWith(`${mark.channel}.`)));
      this.plots.push(charts.length > 1 ? stacked(this, figure, charts, answer, own, value) : this.plot(figure, charts[0], answer, own, value, many));
    }
  }

  // Channels of one vector share a picture.
  pictures(charts) {
    const vectors = this.overview.channels.filter(({ channels }) => channels.length > 1);
    const found = new Map();
    for (const chart of charts) {
      const vector = chart.categories ? undefined : vectors.find(({ channels }) => channels.includes(chart.name));
      const key = vector ? `vector ${vector.name}` : `channel ${chart.name}`;
      if (!found.has(key)) found.set(key, { name: vector ? vector.name : chart.name, charts: [] });
      found.get(key).charts.push(chart);
    }
    return [...found.values()].map(({ name, charts: own }) => ({ name: own.length > 1 ? name : own[0].name, charts: own }));
  }

  plot(figure, chart, answer, marks, value, many) {
    const axis = axes_base();
    const words = chart.categories;
    const at = (kind) => chart.lines.findIndex((line) => line.kind === kind) + 1;
    const series = chart.lines.map((line, number_) => ({
      label: line.id,
      stroke: colour(KINDS[line.kind] ?? number_),
      width: ENDS.includes(line.kind) ? 0 : 1.25,
      dash: line.kind || number_ < COLOURS ? undefined : [6, 4], // colours are used again
      spanGaps: false,
      points: { show: line.whole && line.x.length < this.width / 8 && !ENDS.includes(line.kind), size: 5 },
      paths: words ? uPlot.paths.stepped({ align: 1 }) : undefined,
    }));
    const options = {
      width: this.width,
      height: HEIGHT,
      padding: [10, 24, 0, 0],
      cursor: { sync: { key: "time" }, drag: { x: true, y: false, setScale: false } },
      legend: { show: false },
      scales: { x: { time: false, range: () => spanned(answer) }, y: { range: () => values_range(chart.lines, spanned(answer)) } },
      axes: [time_axis(axis), { ...axis, size: words ? words_width(words) : 64, values: words ? (_, ticks) => ticks.map((tick) => cut(words[tick] ?? "")) : (_, ticks) => ticks.map(number) }],
      series: [{}, ...series],
      bands: at("upper") && at("lower") ? [{ series: [at("upper"), at("lower")], fill: `${colour(1)}44` }] : [],
      hooks: {
        drawClear: [(plot) => mark(plot, marks)],
        draw: [(plot) => this.line(plot)],
        setSelect: [(plot) => zooms(plot, this)],
        setCursor: [(plot) => {
          const { idx } = plot.cursor;
          if (idx === null || idx === undefined) { value.textContent = ""; return; }
          const told = chart.lines.map((line, number_) => {
            const own = plot.data[number_ + 1][idx];
            const text = own === null || own === undefined ? "–" : words ? words[own] ?? own : number(own);
            return many ? `${line.id} ${text}` : text;
          });
          value.textContent = ` ${moment(plot.data[0][idx])}: ${told.join(", ")}`;
        }],
      },
    };
    const plot = new uPlot(options, joined(chart.lines), figure);
    hovered(plot, this);
    return plot;
  }

  // A line through all pictures at a time, such as that of the frame that is shown.
  point(seconds) {
    this.here = seconds;
    for (const plot of this.plots) plot.redraw(false, false);
  }

  line(plot) {
    if (this.here === null) return;
    const { ctx, bbox } = plot;
    const x = Math.round(plot.valToPos(this.here, "x", true));
    if (!(x >= bbox.left && x <= bbox.left + bbox.width)) return;
    ctx.save();
    ctx.strokeStyle = css("--warn");
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }

  resize() {
    for (const plot of this.plots) if (plot.width !== this.width) plot.setSize({ width: this.width, height: plot.height });
  }

  clear() {
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
    this.box.replaceChildren();
  }

  destroy() {
    this.observer.disconnect();
    this.clear();
  }
}

export function axes_base() {
  const grid = css("--grid");
  return { stroke: css("--quiet"), grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, size: 5 }, gap: 3 };
}

// A stretch that was dragged over is zoomed into.
export function zooms(plot, holder) {
  if (plot.select.width < 4) return;
  const low = plot.posToVal(plot.select.left, "x");
  const high = plot.posToVal(plot.select.left + plot.select.width, "x");
  plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  holder.onzoom(low, high);
}

export function hovered(plot, holder) {
  plot.over.addEventListener("dblclick", () => holder.onzoom(null, null));
  if (holder.onpick) plot.over.addEventListener("click", (event) => holder.onpick(plot.posToVal(event.offsetX, "x")));
}

function cut(word) {
  return word.length > MOST_LETTERS ? `${word.slice(0, MOST_LETTERS - 1)}…` : word;
}

function words_width(words) {
  const letters = Math.max(0, ...Object.values(words).map((word) => cut(word).length));
  return Math.max(64, 16 + 7.5 * letters);
}

export function mark(plot, marks) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = css("--marked");
  for (const { span } of marks) {
    const low = plot.valToPos(span[0], "x", true);
    const high = plot.valToPos(span[1], "x", true);
    const left = Math.max(low - 1, bbox.left);
    const right = Math.min(Math.max(high, low + 2) + 1, bbox.left + bbox.width);
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
  }
  ctx.restore();
}

// Bars of a histogram.
export function bars(found, width = 280, height = 110) {
  const canvas = sized(el("canvas", { class: "plain", role: "img" }), width, height);
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  context.fillStyle = css("--accent");
  const most = Math.max(...found.counts, 1);
  const step = width / Math.max(found.counts.length, 1);
  found.counts.forEach((count, at) => {
    const high = (count / most) * (height - 4);
    context.fillRect(at * step, height - high, Math.max(step - 1, 1), high);
  });
  return canvas;
}

export function sized(canvas, width, height) {
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(height * devicePixelRatio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  return canvas;
}

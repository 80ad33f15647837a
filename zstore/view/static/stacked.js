// The channels of a vector as traces, one below the other in one picture, each in a lane of its own range.

import { moment, time_axis } from "./clock.js";
import { axes_base, hovered, mark, spanned, zooms } from "./chart.js";
import { colour, number } from "./dom.js";

const LANE_H = 22;
const LEAST_H = 100;

// `charts` are those of the vector's channels; `holder` is the Charts they are drawn for.
export function stacked(holder, figure, charts, answer, marks, value) {
  const lanes = charts.map((chart) => ({ ...chart, ...range(chart.lines) }));
  const n = lanes.length;
  const base = axes_base();
  const [start, stop] = spanned(answer);
  const plot = new uPlot({
    width: holder.width,
    height: Math.max(LANE_H * n, LEAST_H) + 44,
    padding: [10, 24, 0, 0],
    cursor: { sync: { key: "time" }, drag: { x: true, y: false, setScale: false } },
    legend: { show: false },
    scales: { x: { time: false, range: () => [start, stop] }, y: { range: () => [0, n] } },
    axes: [time_axis(base), { ...base, size: 64, grid: { show: false }, splits: () => lanes.map((_, at) => at + 0.5), values: () => lanes.map(({ name }) => name.slice(name.lastIndexOf(".") + 1)).reverse() }],
    series: [{}, { show: false }],
    hooks: {
      drawClear: [(plot_) => mark(plot_, marks)],
      draw: [(plot_) => traces(plot_, lanes), (plot_) => holder.line(plot_)],
      setSelect: [(plot_) => zooms(plot_, holder)],
      setCursor: [(plot_) => {
        const { left, top } = plot_.cursor;
        if (!(left >= 0)) { value.textContent = ""; return; }
        const lane = lanes[n - 1 - Math.min(Math.max(Math.floor(plot_.posToVal(top, "y")), 0), n - 1)];
        const seconds = plot_.posToVal(left, "x");
        const told = lane.lines.map((line) => [line, nearest(line.x, seconds)]).filter(([, at]) => at >= 0);
        const texts = told.map(([line, at]) => `${lane.lines.length > 1 ? `${line.id} ` : ""}${number(line.y[at])}`);
        value.textContent = told.length ? ` ${moment(told[0][0].x[told[0][1]])}: ${lane.name} ${texts.join(", ")}` : "";
      }],
    },
  }, [[start, stop], [null, null]], figure);
  hovered(plot, holder);
  return plot;
}

function range(lines) {
  let [low, high] = [Infinity, -Infinity];
  for (const { y } of lines) for (const value of y) if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
  return { low, high };
}

function traces(plot, lanes) {
  const { ctx, bbox } = plot;
  const lane_h = bbox.height / lanes.length;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineWidth = 1.25 * devicePixelRatio;
  lanes.forEach(({ lines, low, high }, at) => {
    const bottom = bbox.top + lane_h * (at + 0.92);
    lines.forEach(({ x, y }, number_) => {
      ctx.strokeStyle = colour(number_);
      ctx.beginPath();
      let drawn = false;
      x.forEach((seconds, n) => {
        if (y[n] === null) { drawn = false; return; }
        const across = plot.valToPos(seconds, "x", true);
        const up = bottom - lane_h * 0.84 * (high > low ? (y[n] - low) / (high - low) : 0.5);
        if (drawn) ctx.lineTo(across, up); else { ctx.moveTo(across, up); ctx.lineTo(across + devicePixelRatio, up); }
        drawn = true;
      });
      ctx.stroke();
    });
  });
  ctx.restore();
}

function nearest(x, seconds) {
  let [low, high] = [0, x.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] < seconds) low = middle; else high = middle;
  }
  return high >= 0 && Math.abs(x[high] - seconds) < Math.abs(x[Math.max(low, 0)] - seconds) ? high : Math.min(low, high);
}

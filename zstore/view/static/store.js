// What the store holds: channels with their moments and distributions, what is missing, where series lie.

import { ask } from "./api.js";
import { bars, sized } from "./chart.js";
import { moment } from "./clock.js";
import { counted, css, el, failure, number, plural, share, tip } from "./dom.js";
import { written } from "./state.js";

export const title = "Store";

export async function show(page, overview) {
  const { first, last, step, n_series } = overview;
  page.append(
    el("p", {}, `${plural(overview.n_rows, "row")} of ${counted(n_series)} series`, overview.n_rows && (overview.is_dated || last > first) ? `, ${moment(first)} to ${moment(last)}` : "", `, step ${step}`,
      overview.zone ? `, ${overview.zone}` : "", el("br"), el("span", { class: "quiet" }, overview.path)),
  );
  if (!overview.n_rows) page.append(el("p", { class: "quiet" }, "There is no row in it yet."));
  const chosen = el("div", {});
  if (overview.channels.length) page.append(el("h2", {}, "Channels"), el("div", { class: "scroll" }, channels(overview, chosen)), chosen);
  if (overview.fields.length)
    page.append(el("h2", {}, "Fields"), el("ul", {}, overview.fields.map((field) =>
      el("li", {}, el("a", { href: written("fields", { field: field.name }) }, field.name), " ", el("span", { class: "quiet" }, field.about)))));
  if (overview.statics.length)
    page.append(el("h2", {}, "Static attributes"), el("p", {}, overview.statics.map((static_) => static_.name).join(", ")));
  const hint = tip();
  const sections = [];
  if (overview.n_rows && overview.channels.length) sections.push(missing(page, overview, hint));
  if (overview.has_places) sections.push(places(page, hint));
  Promise.all(sections).then(() => window.zstoreView.told("store", overview));
  return { destroy: () => hint.remove() };
}

function channels(overview, chosen) {
  const head = ["channel", "units", "missing", "mean", "std", "min", "max"];
  const rows = overview.channels.map((channel) => {
    const words = channel.n_words === null ? null : `${counted(channel.n_words)} words`;
    const cells = words ? ["", "", "", words] : [channel.mean, channel.std, channel.min, channel.max].map(number);
    const about = channel.channels.length > 1 ? `${channel.channels.length} channels` : channel.units || "";
    return el("tr", { "data-id": channel.name, tabindex: 0, onclick: () => values(channel, chosen), onkeydown: (event) => { if (event.key === "Enter") values(channel, chosen); } },
      el("td", { title: channel.name }, channel.name), el("td", { class: "quiet" }, about),
      el("td", { class: "number" }, share(channel.missing)), cells.map((cell) => el("td", { class: "number" }, cell)));
  });
  return el("table", {}, el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { class: at > 1 ? "number" : "" }, name)))), el("tbody", {}, rows));
}

async function values(channel, chosen) {
  chosen.dataset.channel = channel.name;
  try {
    const found = await ask("values", { channel: channel.name });
    if (chosen.dataset.channel !== channel.name) return; // another one was chosen meanwhile
    window.zstoreView.told("values", found);
    const [low, median, high] = found.quantiles;
    chosen.replaceChildren(el("figure", {}, el("div", { class: "title" }, `How ${channel.name} is distributed`),
      found.n ? bars(found) : null,
      el("figcaption", {}, found.n ? `99.8 % from ${number(low)} to ${number(high)}, median ${number(median)}; ${counted(found.n)} values looked at` : "nothing was observed")));
  } catch (error) {
    chosen.replaceChildren(failure(error));
  }
}

async function missing(page, overview, hint) {
  const box = el("div", {}, el("p", { class: "quiet" }, "looking…"));
  page.append(el("h2", {}, "What was observed"), box);
  const width = Math.min(Math.max(box.clientWidth, 240), 1100);
  try {
    const columns = Math.floor(width / 4);
    const found = await ask("missing", { lines: 60, columns });
    window.zstoreView.told("missing", found);
    const n_times = found.shares.length ? found.shares[0].length : 0;
    const [cell, high] = [width / Math.max(n_times, 1), found.ids.length > 30 ? 7 : 12];
    const canvas = sized(el("canvas", { class: "plain", role: "img", "aria-label": "what was observed of series over time" }), width, Math.max(found.ids.length, 1) * high);
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    found.shares.forEach((line, number_) => line.forEach((share_, at) => {
      if (!share_) return;
      context.fillStyle = `rgba(${css("--shade")}, ${0.15 + 0.85 * share_})`;
      const [left, right] = [Math.round(at * cell), Math.round((at + 1) * cell)]; // translucent ones must not overlap
      context.fillRect(left, number_ * high, Math.max(right - left, 1), high - 1);
    }));
    const spot = (event) => {
      const box_ = canvas.getBoundingClientRect();
      const line = Math.min(Math.floor(((event.clientY - box_.top) / box_.height) * found.ids.length), found.ids.length - 1);
      const at = Math.min(Math.floor(((event.clientX - box_.left) / box_.width) * n_times), n_times - 1);
      return [Math.max(line, 0), Math.max(at, 0)];
    };
    canvas.addEventListener("mousemove", (event) => {
      const [line, at] = spot(event);
      const when = found.start + ((found.stop - found.start) * at) / Math.max(n_times, 1);
      hint.show(event, `${found.ids[line]}, ${moment(when)}: ${Math.round(100 * found.shares[line][at])} %`);
    });
    canvas.addEventListener("mouseleave", () => hint.hide());
    canvas.addEventListener("click", (event) => { hint.hide(); location.hash = written("series", { id: found.ids[spot(event)[0]] }); });
    const some = found.ids.length < overview.n_series ? `${counted(found.ids.length)} of ${counted(overview.n_series)} series` : "each series";
    const of = found.channels.length < overview.n_channels ? `${found.channels.slice(0, 3).join(", ")}${found.channels.length > 3 ? " …" : ""}` : "all channels";
    box.replaceChildren(el("figure", {}, canvas, el("figcaption", {}, `${moment(found.start)} to ${moment(found.last)}, ${some} a line; the stronger the colour, the more of ${of} is there`)));
  } catch (error) {
    box.replaceChildren(failure(error));
  }
}

async function places(page, hint) {
  const box = el("div", {}, el("p", { class: "quiet" }, "looking…"));
  page.append(el("h2", {}, "Where series lie"), box);
  try {
    const found = await ask("places");
    window.zstoreView.told("places", found);
    if (!found.ids.length) { box.replaceChildren(el("p", { class: "quiet" }, "no series has coordinates")); return; }
    box.replaceChildren(map(found, Math.min(Math.max(box.clientWidth, 240), 900), hint));
  } catch (error) {
    box.replaceChildren(failure(error));
  }
}

// Points by latitude and longitude, a degree of longitude as narrow as it is in the middle of them.
export function map(found, width, hint, colour_of = null, told = (at) => found.ids[at]) {
  const { latitude, longitude, ids } = found;
  const bounds = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  const [south, north] = bounds(latitude);
  const [west, east] = bounds(longitude);
  const narrow = Math.cos((((south + north) / 2) * Math.PI) / 180) || 1e-6;
  const edge = 10;
  const scale = Math.min((width - 2 * edge) / Math.max((east - west) * narrow, 1e-9), 480 / Math.max(north - south, 1e-9), 1e5);
  const high = Math.max((north - south) * scale + 2 * edge, 40);
  const wide = Math.max((east - west) * narrow * scale + 2 * edge, 40);
  const canvas = sized(el("canvas", { class: "plain", role: "img", "aria-label": "map of the series" }), wide, high);
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  const at = ids.map((_, number_) => [edge + (longitude[number_] - west) * narrow * scale, edge + (north - latitude[number_]) * scale]);
  const radius = ids.length > 3000 ? 1.5 : ids.length > 300 ? 2.5 : 4;
  at.forEach(([x, y], number_) => {
    context.fillStyle = colour_of ? colour_of(number_) : css("--accent");
    context.globalAlpha = 0.75;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  });
  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) * (wide / box.width), (event.clientY - box.top) * (high / box.height)];
    let [best, best_d] = [-1, 144];
    at.forEach(([px, py], number_) => {
      const d = (px - x) ** 2 + (py - y) ** 2;
      if (d < best_d) [best, best_d] = [number_, d];
    });
    return best;
  };
  canvas.addEventListener("mousemove", (event) => { const best = nearest(event); hint.show(event, best < 0 ? "" : told(best)); });
  canvas.addEventListener("mouseleave", () => hint.hide());
  canvas.addEventListener("click", (event) => { const best = nearest(event); hint.hide(); if (best >= 0) location.hash = written("series", { id: ids[best] }); });
  const some = ids.length < found.n ? `${counted(ids.length)} of ${counted(found.n)} series` : `${counted(ids.length)} series`;
  return el("figure", {}, canvas, el("figcaption", {}, `${some}; latitude ${number(south)} to ${number(north)}, longitude ${number(west)} to ${number(east)}`));
}

// The versions of the store, and what each of them brought.

import { ask } from "./api.js";
import { counted, el } from "./dom.js";

export const title = "Versions";

export async function show(page, overview) {
  const found = await ask("versions");
  const more = (n) => (n > 0 ? `+${counted(n)}` : counted(n));
  const rows = found.map((version) => el("tr", { class: version.version === overview.version ? "chosen" : "" },
    el("td", { class: "number" }, version.version), el("td", {}, version.committed), el("td", {}, version.action),
    el("td", { class: "number" }, counted(version.n_rows)), el("td", { class: "number" }, more(version.more_rows)),
    el("td", { class: "number" }, counted(version.n_series)), el("td", { class: "number" }, more(version.more_series))));
  const head = ["version", "committed", "by", "rows", "more rows", "series", "more series"];
  page.append(el("h2", {}, "Versions"), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { class: at === 1 || at === 2 ? "" : "number" }, name)))), el("tbody", {}, rows))));
  window.zstoreView.told("versions", found);
  return {};
}

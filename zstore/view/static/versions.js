// The versions of the store, and what each of them brought.

import { ask } from "./api.js";
import { counted, el } from "./dom.js";

export const title = "Versions";

export async function show(page, overview) {
  const found = await ask("versions");
  const more = (n) => (n > 0 ? `+${counted(n)}` : counted(n));
  const rows = found.map((version) => el("tr", { class: version.version === overview.version ? "chosen" : "" },
    el("td", { class: "number" }, version.version), el("td", {}, moment_of(version.committed)), el("td", {}, version.action),
    [counted(version.n_rows), more(version.more_rows), counted(version.n_series), more(version.more_series)].map((text) => el("td", { class: "number" }, text)),
    el("td", {}, times(version)), el("td", { title: version.sources.join(", ") }, sources(version)), el("td", { class: "number" }, version.n_left_out ? counted(version.n_left_out) : ""),
    el("td", {}, version.version === overview.version ? "shown" : el("button", { onclick: () => document.dispatchEvent(new CustomEvent("open-version", { detail: version.version })) }, `show version ${version.version}`))));
  const head = [["version", true], ["committed"], ["by"], ["rows", true], ["more rows", true], ["series", true], ["more series", true], ["times that came"], ["from"], ["rows left out", true], [""]];
  page.append(el("h2", {}, "Versions"), el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map(([name, is_number]) => el("th", { class: is_number ? "number" : "" }, name)))), el("tbody", {}, rows))));
  window.zstoreView.told("versions", found);
  return {};
}

function moment_of(committed) {
  return committed.replace("T", " ").replace(/\+00:00$/, " UTC");
}

function times({ time_start: first, time_stop: last }) {
  return first === last ? first : `${first} to ${last}`;
}

function sources({ sources: names, n_sources }) {
  return `${names.join(", ")}${n_sources > names.length ? ` and ${counted(n_sources - names.length)} more` : ""}`;
}

// The page: which part of it is shown, its keys, and what it says when the store changes underneath.

import { ask, opened } from "./api.js";
import * as clock from "./clock.js";
import { counted, el, failure, plural } from "./dom.js";
import * as state from "./state.js";
import * as findings from "./findings.js";
import * as fields from "./fields.js";
import * as series from "./series.js";
import * as store from "./store.js";
import * as versions from "./versions.js";

const POLL_MS = 5000;

const parts = { store, series, fields, findings, versions };
const names = () => Object.keys(parts).filter((name) => name !== "fields" || overview?.fields.length);
const page = document.getElementById("page");
let shown = null;
let overview = null;

// What tests and curious people read: what the page shows, as numbers.
window.zstoreView = { shown: {}, told(name, value) { this.shown[name] = value; }, part: () => shown };

async function show() {
  const at = state.read();
  const part = names().includes(at.part) ? at.part : "store";
  for (const link of document.querySelectorAll("#tabs a"))
    link.setAttribute("aria-current", link.dataset.part === part ? "page" : "false");
  if (shown?.destroy) shown.destroy();
  shown = null;
  const box = el("div", {}); // of this part alone: one that was left while it waited for an answer writes into nothing
  page.replaceChildren(box);
  try {
    const view = await parts[part].show(box, overview, at);
    if (box.isConnected) shown = view;
    else view?.destroy?.();
  } catch (error) {
    if (error.name !== "AbortError") box.append(failure(error));
  }
  document.getElementById("keys").textContent =
    `keys: 1–${names().length} parts, t light or dark${shown?.keys ? `, ${shown.keys}` : ""}`;
}

function tabs() {
  opened(overview.opening);
  clock.set(overview);
  document.getElementById("tabs").replaceChildren(
    ...names().map((name) => el("a", { href: `#${name}`, "data-part": name }, parts[name].title)),
  );
  document.getElementById("name").replaceChildren(
    overview.name,
    el("span", { class: "quiet" }, ` version ${overview.version} · ${plural(overview.n_rows, "row")} of ${counted(overview.n_series)} series`),
  );
  document.title = `${overview.name} – zstore view`;
}

async function begin() {
  try {
    overview = await ask("overview");
    for (const panel of await ask("panels")) parts[panel.name] = await import(`/panels/${panel.name}.js`);
    tabs();
    await show();
  } catch (error) {
    page.replaceChildren(failure(error));
  }
}

async function change(name, options, parameters = {}) {
  const banner = document.getElementById("banner");
  try {
    overview = await ask(name, parameters, options);
    banner.hidden = true;
    tabs();
    await show();
  } catch (error) {
    banner.replaceChildren(String(error.message));
    banner.hidden = false;
  }
}

const reopen = () => change("reopen", { method: "POST" });
document.addEventListener("open-version", ({ detail }) => change("reopen", { method: "POST" }, { version: detail }));
const follow = () => change("overview", {});

async function look() {
  const banner = document.getElementById("banner");
  if (document.hidden || !overview) return;
  try {
    const { version, newest, is_kept, is_same, opening } = await ask("state");
    if (opening !== overview.opening) banner.replaceChildren(`Another page has opened version ${version} in this viewer.`, el("button", { onclick: follow }, `Show version ${version}`));
    else if (!is_same) banner.replaceChildren("The store was overwritten: what is shown here is what it held before.", el("button", { onclick: reopen }, "Show what it holds now"));
    else if (newest === null) banner.replaceChildren("The store is no longer there: it was moved or removed.");
    else if (newest > version) {
      const lost = is_kept ? "" : ", and what is shown here is being removed";
      banner.replaceChildren(`Version ${newest} is there${lost}.`, el("button", { onclick: reopen }, `Show version ${newest}`));
    } else if (!is_kept) banner.replaceChildren("This version is no longer there.", el("button", { onclick: reopen }, "Show the newest"));
    banner.hidden = opening === overview.opening && newest === version && is_kept;
  } catch (error) {
    banner.replaceChildren(String(error.message));
    banner.hidden = false;
  }
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* a browser that keeps nothing */ }
}

function other_theme() {
  theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  show();
}

function first_theme() {
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* a browser that keeps nothing */ }
  theme(kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
}

document.getElementById("theme").addEventListener("click", other_theme);
window.addEventListener("hashchange", show);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { tagName, type } = event.target;
  if (event.key === "Escape") event.target.blur();
  if (tagName === "SELECT" || (tagName === "INPUT" && type !== "range")) return;
  if (type === "range" && event.key.length > 1) return; // arrows and pages move the slider that has the focus
  if (["BUTTON", "A"].includes(tagName) && event.key === " ") return;
  if (/^[1-9]$/.test(event.key) && names()[Number(event.key) - 1]) location.hash = names()[Number(event.key) - 1];
  else if (event.key === "t") other_theme();
  else if (shown?.key && shown.key(event.key)) event.preventDefault();
});
const poll = async () => { await look(); setTimeout(poll, POLL_MS); };
setTimeout(poll, POLL_MS);
if (location.search) history.replaceState(null, "", `/${location.hash}`);
first_theme();
begin();

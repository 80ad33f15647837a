// The page: which part of it is shown, its keys, and what it says when the store changes underneath.

import { ask } from "./api.js";
import { counted, el, failure } from "./dom.js";
import * as state from "./state.js";
import * as findings from "./findings.js";
import * as fields from "./fields.js";
import * as series from "./series.js";
import * as store from "./store.js";
import * as versions from "./versions.js";

const POLL_MS = 5000;

const parts = { store, series, fields, findings, versions };
const page = document.getElementById("page");
let shown = null;
let overview = null;

// What tests and curious people read: what the page shows, as numbers.
window.zstoreView = { shown: {}, told(name, value) { this.shown[name] = value; }, part: () => shown };

async function show() {
  const at = state.read();
  const part = parts[at.part] ? at.part : "store";
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
    `keys: 1–${Object.keys(parts).length} parts, t light or dark${shown?.keys ? `, ${shown.keys}` : ""}`;
}

function tabs() {
  const has_fields = overview.fields.length > 0;
  if (!has_fields) delete parts.fields;
  document.getElementById("tabs").replaceChildren(
    ...Object.keys(parts).map((name) => el("a", { href: `#${name}`, "data-part": name }, parts[name].title)),
  );
  document.getElementById("name").replaceChildren(
    overview.name,
    el("span", { class: "quiet" }, ` version ${overview.version} · ${counted(overview.n_rows)} rows of ${counted(overview.n_series)} series`),
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

async function reopen() {
  overview = await ask("reopen", {}, { method: "POST" });
  document.getElementById("banner").hidden = true;
  tabs();
  await show();
}

async function look() {
  const banner = document.getElementById("banner");
  if (document.hidden) return;
  try {
    const { version, newest, is_kept } = await ask("state");
    if (newest === null) banner.replaceChildren("The store is no longer there: it was moved or removed.");
    else if (newest > version) {
      const lost = is_kept ? "" : ", and what is shown here is being removed";
      banner.replaceChildren(`Version ${newest} is there${lost}.`, el("button", { onclick: reopen }, `Show version ${newest}`));
    } else if (!is_kept) banner.replaceChildren("This version is no longer there.", el("button", { onclick: reopen }, "Show the newest"));
    banner.hidden = newest === version && is_kept;
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
  const wanted = new URLSearchParams(location.search).get("theme");
  theme(wanted || kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
}

document.getElementById("theme").addEventListener("click", other_theme);
window.addEventListener("hashchange", show);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) && event.target.type !== "range";
  if (event.key === "Escape") event.target.blur();
  if (typing) return;
  const names = Object.keys(parts);
  if (event.key >= "1" && event.key <= String(names.length)) location.hash = names[Number(event.key) - 1];
  else if (event.key === "t") other_theme();
  else if (shown?.key && shown.key(event.key)) event.preventDefault();
});
setInterval(look, POLL_MS);
first_theme();
begin();

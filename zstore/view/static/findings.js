// What the doctor found, and where it is in the series.

import { ask } from "./api.js";
import { counted, el, failure } from "./dom.js";
import { written } from "./state.js";

export const title = "Doctor";

const POLL_MS = 400;
const MOST_LINES = 200;

export async function show(page) {
  const box = el("div", {});
  let alive = true;
  page.append(el("h2", {}, "What looks wrong"), box);
  const look = async () => {
    try {
      const found = await ask("doctor");
      if (!alive) return;
      if (found.error) box.replaceChildren(failure(found.error));
      else if (found.is_done) box.replaceChildren(...findings(found));
      else if (found.is_running) {
        box.replaceChildren(el("p", {}, "reading every value: ", el("progress", { max: found.total || 1, value: found.done }), ` ${counted(found.done)} of ${counted(found.total)} rows`));
        setTimeout(look, POLL_MS);
      } else box.replaceChildren(el("p", {}, "The doctor reads every value once: seconds for millions of rows. "), el("button", { id: "examine", onclick: begin }, "Look the store over"));
      window.zstoreView.told("doctor", found);
    } catch (error) {
      if (alive) box.replaceChildren(failure(error));
    }
  };
  const begin = async () => {
    try { await ask("doctor", {}, { method: "POST" }); look(); } catch (error) { box.replaceChildren(failure(error)); }
  };
  await look();
  return { destroy() { alive = false; } };
}

function findings(found) {
  if (!found.findings.length) return [el("p", {}, `Nothing. Looked for: ${Object.values(found.kinds).join("; ")}.`)];
  const counts = Object.entries(found.counts).map(([kind, n]) => el("li", {}, el("a", { href: "#findings", onclick: (event) => { event.preventDefault(); document.getElementById(`kind-${kind}`)?.scrollIntoView(); } }, `${counted(n)} ${kind.replace(/_/g, " ")}`), " ", el("span", { class: "quiet" }, found.kinds[kind])));
  const kinds = Object.keys(found.counts).map((kind) => {
    const own = found.findings.filter((finding) => finding.kind === kind);
    const lines = own.slice(0, MOST_LINES).map((finding) => el("li", {}, where(finding), " ", finding.sentence));
    const more = found.counts[kind] - lines.length;
    return [el("h2", { id: `kind-${kind}` }, `${kind.replace(/_/g, " ")} `, el("span", { class: "quiet" }, found.kinds[kind])), el("ul", {}, lines), more > 0 ? el("p", { class: "quiet" }, `and ${counted(more)} more, by zstore doctor --json`) : null];
  });
  return [el("ul", {}, counts), ...kinds.flat().filter((each) => each !== null)];
}

function where(finding) {
  if (!finding.series) return el("b", {}, finding.where);
  const parameters = { id: finding.series, channel: finding.channel || null };
  if (finding.span) {
    const around = Math.max((finding.span[1] - finding.span[0]) * 1.5, 1);
    Object.assign(parameters, { start: finding.span[0] - around, stop: finding.span[1] + around });
  }
  return el("a", { href: written("series", parameters) }, finding.where);
}

// What is looked at stands in the address, so that a view can be sent to somebody who has the same store open.

import * as clock from "./clock.js";

export function read() {
  const [part, query] = location.hash.replace(/^#/, "").split("?");
  const parameters = new URLSearchParams(query || "");
  return {
    part: part || "store",
    one: (name, otherwise = "") => parameters.get(name) ?? otherwise,
    many: (name) => parameters.getAll(name),
    time: (name) => clock.read(parameters.get(name)),
    number: (name) => {
      const text = parameters.get(name);
      return text === null || text === "" || Number.isNaN(Number(text)) ? null : Number(text);
    },
  };
}

const TIMES = ["start", "stop"];

export function written(part, parameters) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value === null || value === undefined || value === "") continue;
    if (TIMES.includes(key)) { query.append(key, clock.written(value)); continue; }
    for (const each of Array.isArray(value) ? value : [value]) query.append(key, each);
  }
  const text = query.toString();
  return `#${part}${text ? `?${text}` : ""}`;
}

// Replaces what the address says without a new line in the history, as while one zooms; a part that was left meanwhile
// says nothing there.
export function write(part, parameters) {
  const hash = written(part, parameters);
  if (read().part === part && hash !== location.hash) history.replaceState(null, "", hash);
}

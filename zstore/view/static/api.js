// What the page asks its server for. An answer that takes more than half a second is told to be under way.

let under_way = 0;
let opening = null;

// Which opening of the store the page shows: the server refuses to mix it with another one.
export function opened(number) {
  opening = number;
}

function waiting(more) {
  under_way += more;
  document.getElementById("waiting").hidden = under_way === 0;
}

export function address(name, parameters = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value === null || value === undefined || value === "") continue;
    for (const each of Array.isArray(value) ? value : [value]) query.append(key, each);
  }
  if (opening !== null && !["overview", "reopen", "state"].includes(name)) query.append("opening", opening);
  const text = query.toString();
  return `/api/${name}${text ? `?${text}` : ""}`;
}

export async function ask(name, parameters = {}, { method = "GET", signal } = {}) {
  const late = setTimeout(() => { waiting(1); told = true; }, 500);
  let told = false;
  try {
    const response = await fetch(address(name, parameters), { method, signal });
    const isJson = (response.headers.get("content-type") || "").startsWith("application/json");
    if (!isJson) throw new Error((await response.text()) || `The server answered ${response.status}.`);
    const document_ = await response.json();
    if (!response.ok) throw new Error(document_.error);
    return document_;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof TypeError) throw new Error("The server does not answer: has zstore view ended?");
    throw error;
  } finally {
    clearTimeout(late);
    if (told) waiting(-1);
  }
}

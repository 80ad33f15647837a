// Elements, numbers and colours of a page. Text is always text: nothing of a store becomes markup.

export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") Object.assign(element.style, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}

export function counted(n) {
  return n.toLocaleString("en-US");
}

export function plural(n, what) {
  return `${counted(n)} ${what}${n === 1 ? "" : "s"}`;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e4 && size < 1e12) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(4)));
}

export function share(value) {
  return value === 0 ? "none" : value < 0.001 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`;
}

// Told apart by those who do not see all colours (Okabe and Ito), lighter on a dark ground.
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b87a00", "#3a93c9", "#8c6bb1", "#6f6f6f"];
const DARK = ["#56b4e9", "#e69f00", "#3cc9a0", "#e3a1c6", "#f0e442", "#ff8c4a", "#b9a3e3", "#b8b8b8"];

export function colour(number_) {
  const own = document.documentElement.dataset.theme === "dark" ? DARK : LIGHT;
  return own[number_ % own.length];
}

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function tip() {
  const box = el("div", { class: "tip", hidden: true });
  document.body.append(box);
  return {
    show(event, text) {
      box.textContent = text;
      box.hidden = !text;
      const left = Math.min(event.clientX + 12, innerWidth - box.offsetWidth - 8);
      box.style.left = `${Math.max(left, 0)}px`;
      box.style.top = `${event.clientY + 14}px`;
    },
    hide() { box.hidden = true; },
    remove() { box.remove(); },
  };
}

export function failure(error) {
  return el("p", { class: "error" }, String(error.message || error));
}

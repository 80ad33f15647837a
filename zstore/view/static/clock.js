// Times. Seconds of the page begin at the origin of the store, so that 53 bits tell nanoseconds apart.

import { counted } from "./dom.js";

const DAY = 86400;
const MONDAY = 4 * DAY; // 1970-01-05
const FINE = [...Array(9).keys()].flatMap((n) => [1, 2, 5].map((digit) => digit / 10 ** (9 - n)));
const SECONDS = [...FINE, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, DAY, 2 * DAY, 7 * DAY, 14 * DAY];
const MONTHS = [1, 2, 3, 6, ...[1, 10, 100, 1000, 10000].flatMap((years) => [1, 2, 5].map((digit) => digit * years * 12))];
const MONTH = 30.44 * DAY;

let clock = { origin: 0, is_dated: true, n_digits: 0 };

export function set({ origin, is_dated, n_digits }) {
  clock = { origin, is_dated, n_digits };
}

// How much is shown on either side of a single time.
export function around() {
  return clock.is_dated ? DAY / 2 : 1;
}

// Whole seconds since 1970, and how many units of so many digits lie behind them.
function parted(seconds, n_digits) {
  const whole = Math.floor(seconds);
  const behind = Math.round((seconds - whole) * 10 ** n_digits);
  return behind === 10 ** n_digits ? [clock.origin + whole + 1, 0] : [clock.origin + whole, behind];
}

// Date and time of day of seconds since 1970; null of years that a browser does not know.
function dated(whole) {
  const date = new Date(whole * 1000);
  if (Number.isNaN(date.getTime())) return null;
  const text = date.toISOString();
  return [text.slice(0, -14), text.slice(-13, -5)];
}

// Digits behind the second, by threes, without those that are zero; at least so many.
function fraction(behind, n_digits, least = 0) {
  let text = n_digits ? String(behind).padStart(n_digits, "0") : "";
  while (text.length > least && text.endsWith("000")) text = text.slice(0, -3);
  return text && `.${text.replace(/(\d{3})(?=\d)/g, "$1\u2009")}`;
}

// A time as a person writes it; plain steps as they are.
export function moment(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (!clock.is_dated) return counted(seconds);
  const n_digits = Math.max(clock.n_digits, 3);
  const [whole, behind] = parted(seconds, n_digits);
  const found = dated(whole);
  if (found === null) return `${counted(whole)} s from 1970`;
  if (!behind && found[1] === "00:00:00") return found[0];
  return `${found[0]} ${found[1]}${fraction(behind, n_digits)}`;
}

// Seconds as they stand in an address: since 1970, with all digits. The origin of a store may move with its first row.
export function written(seconds) {
  if (seconds === null || seconds === undefined || !clock.origin) return seconds;
  const [whole, behind] = parted(seconds, 9);
  const all = BigInt(whole) * 1000000000n + BigInt(behind);
  const size = all < 0n ? -all : all;
  const digits = String(size % 1000000000n).padStart(9, "0").replace(/0+$/, "");
  return `${all < 0n ? "-" : ""}${size / 1000000000n}${digits ? `.${digits}` : ""}`;
}

// What `written` wrote, as seconds of the page; null of what is no number.
export function read(text) {
  if (text === null || text === "" || !Number.isFinite(Number(text))) return null;
  const match = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(text);
  if (!clock.origin || !match) return Number(text) - clock.origin;
  const all = BigInt(match[1] + match[2] + (match[3] || "").padEnd(9, "0")) - BigInt(clock.origin) * 1000000000n;
  return Number(all / 1000000000n) + Number(all % 1000000000n) / 1e9;
}

// Ticks of an axis from one time to another, at most so many: where they are, and their texts.
export function ticks(low, high, most) {
  const least = (high - low) / Math.max(most, 1);
  if (!clock.is_dated) return of_steps(low, high, least);
  const step = SECONDS.find((each) => each >= least);
  const found = step === undefined ? of_months(low, high, MONTHS.find((each) => each * MONTH >= least) ?? MONTHS.at(-1)) : step < 1 ? of_fractions(low, high, step) : of_seconds(low, high, step);
  return with_context(found);
}

function of_steps(low, high, least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  const step = Math.max([1, 2, 5, 10].map((digit) => digit * power).find((each) => each >= least), 1);
  const n = Math.max(Math.floor(high / step) - Math.ceil(low / step) + 1, 0);
  return [...Array(n).keys()].map((at) => (Math.ceil(low / step) + at) * step).map((at) => ({ at, text: counted(at) }));
}

function of_fractions(low, high, step) {
  const per_second = Math.round(1 / step);
  const n_digits = Math.ceil(Math.log10(per_second) - 1e-9);
  const wide = Math.ceil(n_digits / 3) * 3;
  const found = [];
  for (let n = Math.ceil(low * per_second); n / per_second <= high; n += 1) {
    const [whole, behind] = parted(n / per_second, wide);
    found.push({ at: n / per_second, text: fraction(behind, wide, wide), context: dated(whole)?.join(" ") ?? "" });
  }
  return found;
}

function of_seconds(low, high, step) {
  const { origin } = clock;
  const shift = step % (7 * DAY) ? 0 : MONDAY;
  const found = [];
  for (let at = Math.ceil((low + origin - shift) / step) * step + shift; at <= high + origin; at += step) {
    const [day, time] = dated(at) ?? [`${counted(at)} s`, ""];
    if (step >= DAY) found.push({ at: at - origin, text: day.slice(-5), context: day.slice(0, -6) });
    else found.push({ at: at - origin, text: step >= 60 ? time.slice(0, 5) : time, context: day });
  }
  return found;
}

function of_months(low, high, step) {
  const { origin } = clock;
  const first = new Date((low + origin) * 1000);
  const found = [];
  if (Number.isNaN(first.getTime())) return found;
  for (let n = Math.floor((first.getUTCFullYear() * 12 + first.getUTCMonth()) / step) * step; ; n += step) {
    const date = new Date(0);
    date.setUTCFullYear(Math.floor(n / 12), ((n % 12) + 12) % 12, 1);
    const at = date.getTime() / 1000 - origin;
    if (!(at <= high)) return found;
    const [day] = dated(at + origin);
    if (at >= low) found.push({ at, text: step >= 12 ? day.slice(0, -6) : day.slice(0, -3) });
  }
}

// A second line where the coarser part of a time changes, unless there is another change right behind it.
function with_context(found) {
  const changes = found.map(({ context }, n) => context !== undefined && context !== found[n - 1]?.context);
  return found.map(({ at, text, context }, n) => ({ at, text: changes[n] && !changes[n + 1] ? `${text}\n${context}` : text }));
}

// The time axis of a picture, `base` having its colours.
export function time_axis(base) {
  let texts = [];
  return {
    ...base,
    size: clock.is_dated ? 44 : 28,
    splits: (plot, _, low, high) => {
      const found = ticks(low, high, Math.floor(plot.bbox.width / devicePixelRatio / 96));
      texts = found.map(({ text }) => text);
      return found.map(({ at }) => at);
    },
    values: () => texts,
  };
}

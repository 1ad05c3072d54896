// Slack's mrkdwn as DOM nodes. Reference: https://docs.slack.dev/messaging/formatting-message-text
import { h, link } from "./dom.js";

const EMOJI = {
  white_check_mark: "✅", heavy_check_mark: "✔️", x: "❌", warning: "⚠️", rotating_light: "🚨", rocket: "🚀",
  hatched_chick: "🐥", baby_chick: "🐤", hourglass: "⌛", hourglass_flowing_sand: "⏳", no_entry: "⛔",
  octagonal_sign: "🛑", pause_button: "⏸️", double_vertical_bar: "⏸️", arrow_forward: "▶️", rewind: "⏪", fire: "🔥",
  eyes: "👀", tada: "🎉", bell: "🔔", no_bell: "🔕", lock: "🔒", snowflake: "❄️", calendar: "📅", clock3: "🕒",
  large_green_circle: "🟢", large_yellow_circle: "🟡", large_orange_circle: "🟠", red_circle: "🔴",
  large_blue_circle: "🔵", white_circle: "⚪", black_circle: "⚫", raised_hand: "✋", leftwards_arrow_with_hook: "↩️",
  chart_with_upwards_trend: "📈", bar_chart: "📊", speech_balloon: "💬", information_source: "ℹ️", question: "❓",
  thumbsup: "👍", "+1": "👍", thumbsdown: "👎", "-1": "👎", computer: "💻", desktop_computer: "🖥️", mag: "🔍",
  stopwatch: "⏱️", ballot_box_with_check: "☑️", heavy_minus_sign: "➖", arrow_up: "⬆️", arrow_down: "⬇️", ghost: "👻",
};

export function emoji(name) {
  return EMOJI[name] ?? `:${name}:`;
}

export function unescape(text) {
  return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}

function shortcodes(text) {
  return text.replace(/:([a-z0-9_+-]+):/g, (whole, name) => EMOJI[name] ?? whole);
}

export function plain(text, withEmoji = true) {
  return document.createTextNode(withEmoji ? shortcodes(text) : text);
}

// Longest first: what is inside code is never looked at again.
const TOKEN = new RegExp(
  [
    "```([\\s\\S]+?)```",
    "`([^`\\n]+)`",
    "<([^<>\\n]+)>",
    "(?<![\\w*])\\*(?=\\S)([^*\\n]*?\\S)\\*(?![\\w*])",
    "(?<![\\w_])_(?=\\S)([^_\\n]*?\\S)_(?![\\w_])",
    "(?<![\\w~])~(?=\\S)([^~\\n]*?\\S)~(?![\\w~])",
  ].join("|"),
  "g",
);

export function mrkdwn(text, names) {
  const nodes = [];
  let quote = [];
  const endQuote = () => {
    if (quote.length) nodes.push(h("blockquote", {}, inline(quote.join("\n"), names)));
    quote = [];
  };
  let open = [];
  const endText = () => {
    if (open.length) nodes.push(h("span", { class: "lines" }, inline(open.join("\n"), names)));
    open = [];
  };
  let fenced = false;
  for (const line of text.split("\n")) {
    const quoted = !fenced && /^(&gt;|>) ?/.exec(line);
    if ((line.match(/```/g) ?? []).length % 2) fenced = !fenced;
    if (quoted) {
      endText();
      quote.push(line.slice(quoted[0].length));
    } else {
      endQuote();
      open.push(line);
    }
  }
  endQuote();
  endText();
  return nodes;
}

function inline(text, names) {
  const nodes = [];
  let at = 0;
  for (const found of text.matchAll(TOKEN)) {
    if (found.index > at) nodes.push(plain(unescape(text.slice(at, found.index))));
    const [whole, block, code, entity, bold, italic, strike] = found;
    if (block !== undefined) nodes.push(h("pre", {}, unescape(block.replace(/^\n|\n$/g, ""))));
    else if (code !== undefined) nodes.push(h("code", {}, unescape(code)));
    else if (entity !== undefined) nodes.push(reference(entity, names));
    else if (bold !== undefined) nodes.push(h("strong", {}, inline(bold, names)));
    else if (italic !== undefined) nodes.push(h("em", {}, inline(italic, names)));
    else if (strike !== undefined) nodes.push(h("s", {}, inline(strike, names)));
    at = found.index + whole.length;
  }
  if (at < text.length) nodes.push(plain(unescape(text.slice(at))));
  return nodes;
}

function reference(entity, names) {
  const bar = entity.indexOf("|");
  const target = bar < 0 ? entity : entity.slice(0, bar);
  const label = bar < 0 ? null : unescape(entity.slice(bar + 1));
  if (target.startsWith("@")) return mention("@" + names.user(target.slice(1), label), target.slice(1) === names.me());
  if (target.startsWith("#")) return mention("#" + names.channel(target.slice(1), label));
  if (target.startsWith("!subteam^")) {
    const group = target.slice("!subteam^".length);
    return mention(names.group(group, label), names.inGroup(group));
  }
  if (target.startsWith("!date^")) return dated(target, label);
  if (/^!(here|channel|everyone)$/.test(target)) return mention("@" + target.slice(1), true);
  if (target.startsWith("!")) return plain(label ?? `<${target}>`);
  return link(unescape(target), label ?? unescape(target).replace(/^mailto:/, ""));
}

export function mention(text, me = false) {
  return h("span", { class: me ? "mention me" : "mention" }, text);
}

function dated(target, label) {
  const [, seconds, format, url] = target.split("^");
  const text = formatDate(Number(seconds), unescape(format ?? ""), label ?? "");
  return url ? link(url, text) : h("time", { datetime: iso(seconds), title: iso(seconds) }, text);
}

function iso(seconds) {
  const date = new Date(Number(seconds) * 1000);
  return Number.isNaN(date.valueOf()) ? "" : date.toISOString();
}

export function formatDate(seconds, format, fallback) {
  const date = new Date(seconds * 1000);
  if (!format || Number.isNaN(date.valueOf())) return fallback;
  const say = (options) => new Intl.DateTimeFormat(undefined, options).format(date);
  const day = (long) => {
    const midnight = (moment) => new Date(moment).setHours(0, 0, 0, 0);
    const days = Math.round((midnight(date) - midnight(Date.now())) / 86_400_000);
    return { "-1": "yesterday", 0: "today", 1: "tomorrow" }[days] ?? long;
  };
  const short = say({ day: "numeric", month: "short", year: "numeric" });
  const normal = say({ day: "numeric", month: "long", year: "numeric" });
  const long = say({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
  const words = {
    date_num: iso(seconds).slice(0, 10), date: normal, date_short: short, date_long: long, date_pretty: day(normal),
    date_short_pretty: day(short), date_long_pretty: day(long), time: say({ hour: "2-digit", minute: "2-digit" }),
    time_secs: say({ hour: "2-digit", minute: "2-digit", second: "2-digit" }), ago: ago(seconds),
  };
  return format.replace(/\{(\w+)\}/g, (whole, name) => words[name] ?? whole);
}

function ago(seconds) {
  const passed = seconds - Date.now() / 1000;
  const [size, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(
    ([length]) => Math.abs(passed) >= length,
  ) ?? [1, "second"];
  return new Intl.RelativeTimeFormat(undefined, { numeric: "auto" }).format(Math.round(passed / size), unit);
}

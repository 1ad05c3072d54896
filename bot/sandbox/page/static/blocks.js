// Block Kit as people see it. `context` has names (for mentions), act(block, element, choice) and files.
import { h, link } from "./dom.js";
import { emoji, formatDate, mention, mrkdwn, plain } from "./mrkdwn.js";

export function renderBlocks(blocks, context) {
  return blocks.map((block) => h("div", { class: `block block-${block.type}` }, render(block, context)));
}

function render(block, context) {
  switch (block.type) {
    case "header": return h("h3", {}, plain(block.text.text));
    case "divider": return h("hr");
    case "section": return section(block, context);
    case "context": return block.elements.map((part) => part.type === "image" ? image(part, "tiny") : h("span", {}, text(part, context)));
    case "actions": return block.elements.map((element) => control(block, element, context));
    case "input": return input(block, context);
    case "image": return h("figure", {}, block.title && h("figcaption", {}, plain(block.title.text)), image(block, "large", context));
    case "rich_text": return block.elements.map((part) => rich(part, context));
    case "markdown": return markdown(block.text);
    case "table": return table(block, context);
    case "plan": return plan(block, context);
    case "task_card": return h("ol", { class: "tasks" }, task(block, context));
    case "alert": return h("p", { class: `alert ${block.level ?? "default"}`, role: "note" }, text(block.text, context));
    default: return h("p", { class: "unknown" }, `[${block.type}]`);
  }
}

export function text(object, context) {
  if (!object) return null;
  return object.type === "mrkdwn" ? mrkdwn(object.text, context.names) : plain(object.text, object.emoji !== false);
}

function section(block, context) {
  const accessory = block.accessory && (block.accessory.type === "image"
    ? image(block.accessory, "small", context)
    : control(block, block.accessory, context));
  return [
    h("div", { class: "section-text" },
      block.text && h("div", {}, text(block.text, context)),
      block.fields && h("div", { class: "fields" }, block.fields.map((field) => h("div", {}, text(field, context))))),
    accessory && h("div", { class: "accessory" }, accessory),
  ];
}

function image(part, size, context) {
  const source = part.slack_file ? context?.fileUrl(part.slack_file.id) : part.image_url;
  return h("img", { src: source, alt: part.alt_text, class: size, loading: "lazy" });
}

// Interactive elements in messages and in modals' section and actions blocks.
function control(block, element, context) {
  const label = element.text?.text ?? element.placeholder?.text ?? "Choose";
  if (element.type === "button") {
    const keys = { action: element.action_id, block: block.block_id };
    if (element.url && /^https?:/i.test(element.url)) {
      return h("a", {
        class: "button", href: element.url, target: "_blank", rel: "noopener noreferrer", data: keys,
        onclick: () => context.act(block, element, {}),
      }, plain(label));
    }
    return h("button", {
      type: "button", class: `button ${element.style ?? ""}`, data: keys,
      "aria-label": element.accessibility_label, onclick: () => context.act(block, element, {}),
    }, plain(label));
  }
  if (element.type === "overflow") return overflow(block, element, context);
  if (context.inForm) return field(block, element, context);
  const options = optionsOf(element, context);
  if (element.type === "checkboxes" || element.type === "radio_buttons" || !options.length) {
    return h("span", { class: "unknown" }, `[${element.type}]`);
  }
  return h("select", {
    "aria-label": label, data: { action: element.action_id, block: block.block_id },
    onchange: (event) => {
      const option = options.find((each) => each.value === event.target.value);
      event.target.value = "";
      context.act(block, element, choiceOf(element, option.value));
    },
  }, h("option", { value: "" }, label), options.map((option) => h("option", { value: option.value }, option.label)));
}

function overflow(block, element, context) {
  const menu = h("ul", { class: "menu", role: "menu", hidden: true },
    element.options.map((option) => h("li", { role: "none" }, h("button", {
      type: "button", role: "menuitem", tabindex: "-1",
      onclick: () => {
        close();
        context.act(block, element, { selected_option: option.value });
      },
    }, plain(option.text.text), option.description && h("small", {}, plain(option.description.text))))));
  const button = h("button", {
    type: "button", class: "button overflow", "aria-haspopup": "menu", "aria-expanded": "false",
    "aria-label": "More actions", data: { action: element.action_id, block: block.block_id },
    onclick: () => menu.hidden ? open() : close(),
    onkeydown: (event) => {
      if (event.key !== "ArrowDown" || !menu.hidden) return;
      event.preventDefault();
      event.stopPropagation();
      open();
    },
  }, "⋯");
  const outside = (event) => { if (!wrap.contains(event.target)) close(false); };
  function open() {
    menu.hidden = false;
    button.setAttribute("aria-expanded", "true");
    menu.querySelector("button").focus();
    document.addEventListener("pointerdown", outside);
  }
  function close(refocus = true) {
    menu.hidden = true;
    button.setAttribute("aria-expanded", "false");
    if (refocus) button.focus();
    document.removeEventListener("pointerdown", outside);
  }
  const wrap = h("div", { class: "overflow-wrap", onkeydown: (event) => {
    if (menu.hidden) return;
    const items = [...menu.querySelectorAll("button")];
    const at = items.indexOf(document.activeElement);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      items[(next + items.length) % items.length].focus();
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      close();
    } else if (event.key === "Tab") close(false);
  } }, button, menu);
  return wrap;
}

function optionsOf(element, context) {
  if (element.type.includes("users_select")) return context.names.users().map(([value, label]) => ({ value, label }));
  if (element.type.includes("channels_select") || element.type.includes("conversations_select")) {
    return context.names.channels().map(([value, label]) => ({ value, label: "#" + label }));
  }
  const groups = element.option_groups?.flatMap((group) => group.options) ?? [];
  return [...(element.options ?? []), ...groups].map((option) => ({ value: option.value, label: option.text.text, option }));
}

function choiceOf(element, value) {
  if (element.type === "users_select") return { selected_user: value };
  if (element.type === "channels_select") return { selected_channel: value };
  if (element.type === "conversations_select") return { selected_conversation: value };
  return { selected_option: value };
}

function input(block, context) {
  const id = `input-${block.block_id}`;
  const error = context.errors?.[block.block_id];
  return [
    h("label", { for: id }, plain(block.label.text), block.optional && h("small", {}, " (optional)")),
    field(block, block.element, context, id, error),
    block.hint && h("small", { class: "hint" }, plain(block.hint.text)),
    error && h("p", { class: "error", id: `${id}-error` }, error),
  ];
}

// A form field; its value is read by `formValues`.
function field(block, element, context, id, error) {
  const attributes = {
    id, class: "field", data: { block: block.block_id, action: element.action_id, kind: element.type },
    "aria-invalid": error ? "true" : null, "aria-describedby": error ? `${id}-error` : null,
    placeholder: element.placeholder?.text, autofocus: element.focus_on_load,
  };
  const dispatch = block.dispatch_action || block.type !== "input";
  const changed = dispatch ? { onchange: (event) => context.act(block, element, choiceOf(element, event.target.value)) } : {};
  switch (element.type) {
    case "plain_text_input": {
      const made = h(element.multiline ? "textarea" : "input", {
        ...attributes, maxlength: element.max_length, rows: element.multiline ? 4 : null });
      made.value = element.initial_value ?? "";
      return made;
    }
    case "number_input": return h("input", { ...attributes, inputmode: "decimal", value: element.initial_value });
    case "url_text_input": return h("input", { ...attributes, type: "url", value: element.initial_value });
    case "datepicker": return h("input", { ...attributes, type: "date", value: element.initial_date });
    case "timepicker": return h("input", { ...attributes, type: "time", value: element.initial_time });
    case "datetimepicker": return h("input", { ...attributes, type: "datetime-local" });
    case "checkboxes":
    case "radio_buttons": {
      const several = element.type === "checkboxes";
      const chosen = (several ? element.initial_options ?? [] : [element.initial_option]).map((option) => option?.value);
      return h("fieldset", { ...attributes, ...changed }, element.options.map((option) => h("label", {},
        h("input", { type: several ? "checkbox" : "radio", name: `${block.block_id}-${element.action_id}`, value: option.value, checked: chosen.includes(option.value) }),
        h("span", {}, text(option.text, context), option.description && h("small", {}, text(option.description, context))))));
    }
    default: {
      const several = element.type.startsWith("multi_");
      const initial = [element.initial_option, ...(element.initial_options ?? [])].map((option) => option?.value)
        .concat(element.initial_user, element.initial_users ?? [], element.initial_channel, element.initial_conversation);
      return h("select", { ...attributes, ...changed, multiple: several },
        !several && h("option", { value: "" }, element.placeholder?.text ?? "Choose an option"),
        optionsOf(element, context).map((option) => h("option", { value: option.value, selected: initial.includes(option.value) }, option.label)));
    }
  }
}

export function formValues(form) {
  const values = {};
  for (const element of form.querySelectorAll(".field")) {
    const { block, action, kind } = element.dataset;
    (values[block] ??= {})[action] = valueOf(element, kind);
  }
  return values;
}

function valueOf(element, kind) {
  if (kind === "checkboxes") return [...element.querySelectorAll("input:checked")].map((box) => box.value);
  if (kind === "radio_buttons") return element.querySelector("input:checked")?.value ?? null;
  if (kind.startsWith("multi_")) return [...element.selectedOptions].map((option) => option.value);
  if (kind === "datetimepicker") return element.value ? Math.round(new Date(element.value).valueOf() / 1000) : null;
  return element.value === "" ? null : element.value;
}

function rich(part, context) {
  switch (part.type) {
    case "rich_text_section": return h("p", {}, part.elements.map((each) => richPart(each, context)));
    case "rich_text_preformatted": return h("pre", {}, part.elements.map((each) => richPart(each, context)));
    case "rich_text_quote": return h("blockquote", {}, part.elements.map((each) => richPart(each, context)));
    case "rich_text_list": {
      const list = h(part.style === "ordered" ? "ol" : "ul", {}, part.elements.map((each) => h("li", {}, each.elements.map((inner) => richPart(inner, context)))));
      list.style.marginInlineStart = `${(part.indent ?? 0) * 1.5}em`;
      return list;
    }
    default: return rich({ type: "rich_text_section", elements: [part] }, context);
  }
}

function richPart(part, context) {
  const names = context.names;
  const made = () => {
    switch (part.type) {
      case "text": return document.createTextNode(part.text);
      case "link": return link(part.url, part.text ?? part.url);
      case "emoji": return document.createTextNode(part.unicode
        ? String.fromCodePoint(...part.unicode.split("-").map((code) => parseInt(code, 16))) : emoji(part.name));
      case "user": return mention("@" + names.user(part.user_id), part.user_id === names.me());
      case "usergroup": return mention(names.group(part.usergroup_id), names.inGroup(part.usergroup_id));
      case "channel": return mention("#" + names.channel(part.channel_id));
      case "broadcast": return mention("@" + part.range, true);
      case "date": return h("time", {}, formatDate(part.timestamp, part.format, part.fallback ?? ""));
      default: return document.createTextNode(part.value ?? "");
    }
  };
  const tags = { bold: "strong", italic: "em", strike: "s", code: "code", underline: "u" };
  return Object.entries(tags).reduce((node, [style, tag]) => part.style?.[style] ? h(tag, {}, node) : node, made());
}

function table(block, context) {
  const cell = (content) => content.type === "rich_text" ? content.elements.map((part) => rich(part, context)) : content.text;
  const [head, ...rows] = block.rows;
  const place = (index) => {
    const column = block.column_settings?.[index];
    return `${column?.align ?? "left"}${column?.is_wrapped ? " wrapped" : ""}`;
  };
  return h("div", { class: "table-wrap", tabindex: "0", role: "region", "aria-label": "Table" }, h("table", {},
    h("thead", {}, h("tr", {}, head.map((content, index) => h("th", { scope: "col", class: place(index) }, cell(content))))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((content, index) => h("td", { class: place(index) }, cell(content))))))));
}

const STATES = { pending: ["○", "pending"], in_progress: ["◐", "in progress"], complete: ["✓", "complete"], error: ["✕", "error"] };

function plan(block, context) {
  const tasks = block.tasks ?? [];
  return [h("p", { class: "plan-title" }, plain(block.title)), h("ol", { class: "tasks" }, tasks.map((each) => task(each, context)))];
}

function task(card, context) {
  const [sign, word] = STATES[card.status];
  return h("li", { class: `task ${card.status}` },
    h("span", { class: "task-state", role: "img", "aria-label": word }, sign),
    h("div", {}, h("div", { class: "task-title" }, plain(card.title)),
      card.details && h("div", { class: "task-details" }, card.details.elements.map((part) => rich(part, context))),
      card.output && h("div", { class: "task-details" }, card.output.elements.map((part) => rich(part, context)))));
}

// Standard Markdown, the part of it that bots write: headings, lists, code, emphasis, links.
function markdown(source) {
  const nodes = [];
  for (const piece of source.split(/(```[\s\S]*?```)/)) {
    if (piece.startsWith("```")) {
      nodes.push(h("pre", {}, piece.slice(3, -3).replace(/^\w*\n/, "")));
      continue;
    }
    for (const line of piece.split("\n")) {
      const heading = /^#{1,6} (.*)/.exec(line);
      const bullet = /^\s*(?:[-*]|\d+\.) (.*)/.exec(line);
      if (heading) nodes.push(h("h4", {}, markdownInline(heading[1])));
      else if (bullet) nodes.push(h("p", { class: "bullet" }, "• ", markdownInline(bullet[1])));
      else if (line.trim()) nodes.push(h("p", {}, markdownInline(line)));
    }
  }
  return nodes;
}

function markdownInline(line) {
  const nodes = [];
  let at = 0;
  for (const found of line.matchAll(/`([^`]+)`|\*\*(.+?)\*\*|\*(.+?)\*|~~(.+?)~~|\[([^\]]+)\]\(([^)\s]+)\)/g)) {
    nodes.push(line.slice(at, found.index));
    const [whole, code, bold, italic, strike, label, url] = found;
    if (code !== undefined) nodes.push(h("code", {}, code));
    else if (bold !== undefined) nodes.push(h("strong", {}, markdownInline(bold)));
    else if (italic !== undefined) nodes.push(h("em", {}, markdownInline(italic)));
    else if (strike !== undefined) nodes.push(h("s", {}, markdownInline(strike)));
    else nodes.push(link(url, label));
    at = found.index + whole.length;
  }
  nodes.push(line.slice(at));
  return nodes;
}

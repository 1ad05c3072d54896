// The message field: Enter sends, "/canary" and "@" complete.
import { append, fill, h } from "./dom.js";

export const VERBS = [
  ["start", "<service> [to <subset>] [plan <name>] [steps …]", "Begin a canary release"],
  ["status", "[<service or id>]", "The card, privately"],
  ["promote", "<id> [--full]", "End this bake now if the gates pass"],
  ["hold", "<id> [reason]", "Stop advancing; gates stay on"],
  ["resume", "<id>", "Go on after a hold"],
  ["cancel", "<id>", "Take back a start that has not begun"],
  ["rollback", "<id, service or all> [reason]", "To 0 now"],
  ["undo", "<service>", "All weight back to the former stable"],
  ["approve", "<id>", "Let it go on"],
  ["reject", "<id> <reason>", "Do not let it go on"],
  ["pending", "", "What waits for whom"],
  ["history", "[<service>]", "Finished rollouts"],
  ["gates", "<service>", "Judge now, privately"],
  ["nodes", "", "Node conditions, steal, iowait"],
  ["freeze", "<service or all> [for 4h] <reason>", "Nothing starts, no weight goes up"],
  ["unfreeze", "<service or all>", "End a freeze"],
  ["freezes", "", "What is frozen"],
  ["plans", "", "Plans of the catalog"],
  ["services", "", "Services you may release"],
  ["help", "[verb]", "What there is"],
  ["version", "", "Which version runs"],
];

export class Composer {
  constructor(form, id, { send, names, slash }) {
    this.names = names;
    this.slash = slash;
    this.send = send;
    this.sent = [];
    this.at = 0;
    this.list = h("ul", { class: "suggestions", role: "listbox", id: `${id}-list`, "aria-label": "Suggestions", hidden: true });
    this.input = h("textarea", {
      id: `${id}-input`, rows: 1, "aria-label": "Message", role: "combobox", "aria-expanded": "false",
      "aria-autocomplete": "list", "aria-controls": `${id}-list`, spellcheck: "false",
      oninput: () => this.suggest(), onkeydown: (event) => this.key(event), onblur: () => setTimeout(() => this.close(), 150),
    });
    append(form, [this.list, this.input, h("button", { type: "submit", class: "button primary", "aria-label": "Send" }, "Send")]);
    form.addEventListener("submit", (event) => { event.preventDefault(); this.submit(); });
  }

  placeholder(text) {
    this.input.placeholder = text;
  }

  submit() {
    const text = this.input.value.trim();
    this.close();
    if (!text) return;
    this.sent.push(text);
    this.at = this.sent.length;
    this.input.value = "";
    this.grow();
    this.send(text);
  }

  grow() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight, 160)}px`;
  }

  key(event) {
    const open = !this.list.hidden;
    if (event.isComposing) return;
    if (open && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      this.select(this.chosen + (event.key === "ArrowDown" ? 1 : -1));
    } else if (open && event.key === "Tab") {
      event.preventDefault();
      this.take(this.chosen);
    } else if (open && event.key === "Enter" && this.exact !== true) {
      event.preventDefault();
      this.take(this.chosen);
    } else if (open && event.key === "Escape") {
      event.stopPropagation();
      this.close();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && !this.input.value && this.sent.length) {
      event.preventDefault();
      this.input.value = this.sent[this.sent.length - 1];
      this.suggest();
    }
  }

  suggest() {
    this.grow();
    const typed = this.input.value.slice(0, this.input.selectionStart);
    const found = this.candidates(typed);
    if (!found.length) return this.close();
    this.found = found;
    this.exact = found.length === 1 && typed.endsWith(found[0].whole.trim());
    fill(this.list, found.map((each, index) => h("li", {
      role: "option", id: `${this.list.id}-${index}`, onpointerdown: (event) => { event.preventDefault(); this.take(index); },
    }, h("b", {}, each.title), h("span", {}, each.usage), h("small", {}, each.about))));
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.select(0);
  }

  candidates(typed) {
    const verb = /^\/(?:canary ?)?([a-z]*)$/.exec(typed);
    if (this.slash && typed.startsWith("/") && verb && ("/canary".startsWith(typed) || typed.startsWith("/canary"))) {
      const word = typed.startsWith("/canary") ? verb[1] : "";
      return VERBS.filter(([name]) => name.startsWith(word)).map(([name, usage, about]) => ({
        title: `/canary ${name}`, usage, about, from: 0, whole: `/canary ${name}${usage ? " " : ""}`,
      }));
    }
    const mention = /(?:^|\s)@([a-z-]*)$/.exec(typed);
    if (mention) {
      return this.names.mentionable().filter(([name]) => name.startsWith(mention[1])).map(([name, about]) => ({
        title: "@" + name, usage: "", about, from: typed.length - mention[1].length - 1, whole: `@${name} `,
      }));
    }
    return [];
  }

  select(index) {
    const items = [...this.list.children];
    this.chosen = (index + items.length) % items.length;
    items.forEach((item, place) => item.setAttribute("aria-selected", String(place === this.chosen)));
    items[this.chosen].scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", items[this.chosen].id);
  }

  take(index) {
    const { from, whole } = this.found[index];
    const rest = this.input.value.slice(this.input.selectionStart);
    this.input.value = this.input.value.slice(0, from) + whole + rest;
    const place = from + whole.length;
    this.input.setSelectionRange(place, place);
    this.close();
    this.input.focus();
    this.grow();
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }
}

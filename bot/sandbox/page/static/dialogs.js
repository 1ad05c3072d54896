// Confirm dialogs and modals, as native <dialog>: the browser keeps focus inside and closes on Escape.
import { fill, h } from "./dom.js";
import { formValues, renderBlocks, text } from "./blocks.js";
import { plain } from "./mrkdwn.js";

export function confirmed(confirm, context) {
  return new Promise((resolve) => {
    const answer = (yes) => () => { dialog.close(); resolve(yes); };
    const dialog = h("dialog", { class: "dialog confirm", "aria-labelledby": "confirm-title" },
      h("h2", { id: "confirm-title" }, plain(confirm.title.text)),
      h("div", { class: "dialog-body" }, text(confirm.text, context)),
      h("div", { class: "dialog-actions" },
        h("button", { type: "button", class: "button", onclick: answer(false) }, plain(confirm.deny.text)),
        h("button", { type: "button", class: `button ${confirm.style === "danger" ? "danger solid" : "primary"}`, autofocus: true, onclick: answer(true) }, plain(confirm.confirm.text))));
    dialog.addEventListener("cancel", () => resolve(false));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  });
}

export class Modals {
  constructor(contextOf, handlers) {
    this.contextOf = contextOf;
    this.handlers = handlers;
    this.dialog = null;
    this.shown = null;
  }

  show(view, stackDepth) {
    if (!view) return this.hide();
    const key = `${view.id}:${view.hash}`;
    const typed = this.dialog && this.shown?.split(":")[0] === view.id ? formValues(this.dialog) : {};
    const again = this.shown === key;
    this.shown = key;
    const context = { ...this.contextOf(view), inForm: true, errors: view.errors ?? {} };
    const submit = (event) => {
      event.preventDefault();
      this.handlers.submit(view, formValues(form));
    };
    const close = () => this.handlers.close(view);
    const form = h("form", { onsubmit: submit, novalidate: true },
      h("header", {},
        h("h2", { id: "modal-title" }, plain(view.title.text)),
        h("button", { type: "button", class: "icon", "aria-label": "Close", onclick: close }, "✕")),
      h("div", { class: "dialog-body" }, view.errors?.[""] && h("p", { class: "error" }, view.errors[""]), renderBlocks(view.blocks, context)),
      h("div", { class: "dialog-actions" },
        h("button", { type: "button", class: "button", onclick: close }, plain(view.close?.text ?? (stackDepth > 1 ? "Back" : "Cancel"))),
        view.submit && h("button", { type: "submit", class: "button primary" }, plain(view.submit.text))));
    if (!this.dialog) {
      this.dialog = h("dialog", { class: "dialog modal", "aria-labelledby": "modal-title" });
      this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); this.current(); });
      document.body.append(this.dialog);
    }
    this.current = close;
    fill(this.dialog, form);
    if (again || Object.keys(typed).length) restore(form, typed);
    if (!this.dialog.open) this.dialog.showModal();
    (form.querySelector("[aria-invalid=true], [autofocus]") ?? form.querySelector(".field"))?.focus();
  }

  hide() {
    this.dialog?.close();
    this.dialog?.remove();
    this.dialog = null;
    this.shown = null;
  }
}

function restore(form, typed) {
  for (const element of form.querySelectorAll(".field")) {
    const { block, action, kind } = element.dataset;
    const value = typed[block]?.[action];
    if (value === null || value === undefined) continue;
    if (kind === "checkboxes" || kind === "radio_buttons") {
      for (const box of element.querySelectorAll("input")) box.checked = [value].flat().includes(box.value);
    } else if (kind.startsWith("multi_")) {
      for (const option of element.options) option.selected = value.includes(option.value);
    } else if (kind !== "datetimepicker") element.value = value;
  }
}

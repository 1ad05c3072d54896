// Two streams of server-sent events feed the two sides; the browser reconnects them by itself.
import { h } from "./dom.js";
import { Mesh } from "./mesh.js";
import { Slack } from "./slack.js";

const live = document.getElementById("live");
const toasts = document.getElementById("toasts");

function toast(text) {
  const shown = h("div", { class: "toast" }, text);
  toasts.append(shown);
  setTimeout(() => shown.remove(), 5000);
}

function announce(text) {
  live.textContent = text;
}

const slack = new Slack({ toast, announce });
const mesh = new Mesh({ toast });

function stream(path, handlers) {
  const source = new EventSource(path);
  for (const [kind, handle] of Object.entries(handlers)) {
    source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
  }
}

stream("/api/slack/stream", {
  snapshot: (state) => slack.snapshot(state),
  message: ({ message }) => slack.message(message),
  message_deleted: (gone) => slack.messageDeleted(gone),
  channel: ({ channel }) => slack.room(channel),
  file: ({ file }) => slack.file(file),
  view: ({ view }) => slack.view(view),
  view_closed: (closed) => slack.viewClosed(closed),
  home: ({ view }) => slack.home(view),
  notice: (notice) => slack.notice(notice),
});

stream("/api/mesh/stream", {
  history: ({ samples }) => mesh.history(samples),
  sample: (sample) => mesh.sample(sample),
});

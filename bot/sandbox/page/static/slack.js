// The left side: channels, messages, threads, the home tab, forms and the person one is.
import { fill, h, post } from "./dom.js";
import { renderBlocks } from "./blocks.js";
import { Composer } from "./composer.js";
import { confirmed, Modals } from "./dialogs.js";
import { mrkdwn } from "./mrkdwn.js";

const BOT = "U0CANARY";
const byId = (id) => document.getElementById(id);

export class Slack {
  constructor({ toast, announce }) {
    this.toast = toast;
    this.announce = announce;
    this.state = null;
    this.user = sessionStorage.getItem("user") ?? "U0ADA";
    this.channel = sessionStorage.getItem("channel") ?? "C0DEPLOYS";
    this.thread = null;
    this.tab = "messages";
    this.unread = new Map();
    this.nodes = new Map();
    const names = this.names = this.makeNames();
    this.composer = new Composer(byId("composer"), "composer", { send: (text) => this.say(text), names, slash: true });
    this.threadComposer = new Composer(byId("thread-composer"), "thread-composer", {
      send: (text) => this.say(text, this.thread), names, slash: true });
    this.modals = new Modals((view) => this.context({ view }), {
      submit: async (view, values) => this.tell(await post("/api/act/submit", { user: this.user, view_id: view.id, values }), ["incomplete", "errors"]),
      close: async (view) => this.tell(await post("/api/act/close", { user: this.user, view_id: view.id })),
    });
    byId("thread-close").addEventListener("click", () => this.openThread(null));
    byId("thread").addEventListener("keydown", (event) => { if (event.key === "Escape") this.openThread(null); });
    byId("user").addEventListener("change", (event) => this.become(event.target.value));
  }

  makeNames() {
    const find = (list, id) => this.state?.[list].find((each) => each.id === id);
    return {
      me: () => this.user,
      user: (id, label) => find("users", id)?.real_name ?? label ?? id,
      channel: (id, label) => find("channels", id)?.name ?? label ?? id,
      group: (id, label) => "@" + (find("groups", id)?.handle ?? (label ?? id).replace(/^@/, "")),
      inGroup: (id) => find("groups", id)?.users.includes(this.user) ?? false,
      users: () => this.state.users.filter((user) => user.kind !== "bot").map((user) => [user.id, user.real_name]),
      channels: () => this.state.channels.filter((room) => !room.person).map((room) => [room.id, room.name]),
      mentionable: () => [
        ...this.state.users.filter((user) => user.id !== "USLACKBOT").map((user) => [user.name, user.real_name]),
        ...this.state.groups.map((group) => [group.handle, group.name]),
      ],
    };
  }

  context(place) {
    return {
      names: this.names,
      fileUrl: (id) => this.fileUrl(id),
      act: (block, element, choice) => this.act(place, block, element, choice),
    };
  }

  fileUrl(id) {
    const file = this.state.files.find((each) => each.id === id);
    return file ? `/api/files/${encodeURIComponent(file.id)}/${encodeURIComponent(file.name)}` : "";
  }

  async act(place, block, element, choice) {
    if (element.confirm && !await confirmed(element.confirm, this.context(place))) return;
    const where = place.message
      ? { channel: place.message.channel, ts: place.message.ts }
      : { view_id: place.view.id };
    const done = this.busy(block, element);
    const answer = await post("/api/act/click", {
      user: this.user, ...where, action_id: element.action_id, block_id: block.block_id, ...choice });
    done();
    this.tell(answer);
  }

  busy(block, element) {
    const found = document.querySelectorAll(
      `[data-action="${CSS.escape(element.action_id)}"][data-block="${CSS.escape(block.block_id)}"]`);
    found.forEach((each) => each.setAttribute("aria-busy", "true"));
    return () => found.forEach((each) => each.removeAttribute("aria-busy"));
  }

  tell(answer, quiet = []) {
    if (answer.ok === false && !quiet.includes(answer.error) && !answer.ephemeral?.length) {
      const texts = {
        operation_timeout: "Canary did not answer in time. Try again.",
        dispatch_failed: "Canary is not reachable.",
        no_such_action: "That button is no longer there.",
        not_in_channel: "You are not in this channel.",
      };
      this.toast(texts[answer.error] ?? `Slack refused: ${answer.error}`);
    }
  }

  async say(text, thread = null) {
    const kind = text.startsWith("/") ? "command" : "message";
    const body = { user: this.user, channel: this.channel, text };
    if (thread) body.thread_ts = thread;
    this.tell(await post(`/api/act/${kind}`, body));
  }

  become(user) {
    this.user = user;
    sessionStorage.setItem("user", user);
    if (!this.visibleRooms().some((room) => room.id === this.channel)) this.channel = "C0DEPLOYS";
    this.openThread(null);
    this.drawAll();
    this.toast(`You are now ${this.names.user(user)}`);
  }

  // Changes from the stream.

  snapshot(state) {
    this.state = state;
    this.drawAll();
  }

  message(message) {
    const list = this.state.messages;
    const at = list.findIndex((each) => each.channel === message.channel && each.ts === message.ts);
    if (at >= 0) list[at] = message;
    else list.push(message);
    if (!this.sees(message)) return;
    if (message.channel !== this.channel) {
      if (at < 0) this.unread.set(message.channel, (this.unread.get(message.channel) ?? 0) + 1);
      this.drawRooms();
      return;
    }
    if (at < 0 && message.user !== this.user) this.announce(`${this.names.user(message.user)}: ${message.text}`);
    this.drawMessages();
  }

  messageDeleted({ channel, ts }) {
    this.state.messages = this.state.messages.filter((each) => each.channel !== channel || each.ts !== ts);
    this.drawMessages();
  }

  room(room) {
    const at = this.state.channels.findIndex((each) => each.id === room.id);
    if (at >= 0) this.state.channels[at] = room;
    else this.state.channels.push(room);
    this.drawRooms();
  }

  file(file) {
    this.state.files = [...this.state.files.filter((each) => each.id !== file.id), file];
  }

  view(view) {
    this.state.views = [...this.state.views.filter((each) => each.id !== view.id), view];
    const stack = (this.state.stacks[view.user] ??= []);
    if (!stack.includes(view.id)) stack.push(view.id);
    this.drawModal();
  }

  viewClosed({ view_id: id, user }) {
    this.state.views = this.state.views.filter((each) => each.id !== id);
    this.state.stacks[user] = (this.state.stacks[user] ?? []).filter((each) => each !== id);
    this.drawModal();
  }

  home(view) {
    this.state.homes[view.user] = view;
    this.drawHome();
  }

  notice({ user, text }) {
    if (user === this.user) this.tell({ ok: false, error: text });
  }

  // What this person sees.

  sees(message) {
    return !message.ephemeral_to || message.ephemeral_to === this.user;
  }

  visibleRooms() {
    return this.state.channels.filter((room) => room.members.includes(this.user));
  }

  drawAll() {
    this.drawUsers();
    this.drawRooms();
    this.nodes.clear();
    fill(byId("messages"));
    this.drawMessages(true);
    this.drawModal();
  }

  drawUsers() {
    const people = this.state.users.filter((user) => user.kind !== "bot");
    fill(byId("user"), people.map((user) => h("option", { value: user.id, selected: user.id === this.user }, user.real_name)));
    const me = people.find((user) => user.id === this.user);
    const groups = this.state.groups.filter((group) => group.users.includes(this.user)).map((group) => "@" + group.handle);
    byId("user-title").textContent = [me.title, ...groups].join(" · ");
  }

  drawRooms() {
    const rooms = this.visibleRooms();
    const entry = (id, label, open) => {
      const unread = this.unread.get(id);
      return h("li", {}, h("button", {
        type: "button", class: unread ? "unread" : "", "aria-current": id === this.channel ? "page" : null, onclick: open,
      }, h("span", {}, label), unread && h("b", { "aria-label": `${unread} new` }, unread)));
    };
    fill(byId("channels"), rooms.filter((room) => !room.person).map((room) =>
      entry(room.id, `${room.is_private ? "🔒" : "#"} ${room.name}`, () => this.open(room.id))));
    const direct = `D0${this.user.slice(2)}`;
    fill(byId("directs"), entry(direct, [h("img", { src: "/static/icon.svg", alt: "" }), "Canary"], () => this.open(direct)));
  }

  open(channel) {
    this.channel = channel;
    sessionStorage.setItem("channel", channel);
    this.unread.delete(channel);
    this.openThread(null);
    this.tab = "messages";
    this.drawRooms();
    this.drawMessages(true);
    this.composer.input.focus();
  }

  drawHead() {
    const room = this.state.channels.find((each) => each.id === this.channel);
    const direct = this.channel.startsWith("D");
    byId("room-name").textContent = direct ? "Canary" : `# ${room?.name ?? ""}`;
    byId("room-topic").textContent = direct ? "App" : room?.topic ?? "";
    this.composer.placeholder(direct ? "Message Canary" : `Message #${room?.name ?? ""}, or /canary`);
    const tabs = byId("tabs");
    tabs.hidden = !direct;
    if (!direct) this.tab = "messages";
    fill(tabs, [["home", "Home"], ["messages", "Messages"]].map(([name, label]) => h("button", {
      type: "button", role: "tab", "aria-selected": String(this.tab === name), tabindex: this.tab === name ? "0" : "-1",
      onclick: () => this.openTab(name),
      onkeydown: (event) => { if (event.key.startsWith("Arrow")) this.openTab(name === "home" ? "messages" : "home", true); },
    }, label)));
    byId("messages").hidden = this.tab === "home";
    byId("composer").hidden = this.tab === "home";
    byId("home").hidden = this.tab !== "home";
  }

  openTab(name, focus = false) {
    this.tab = name;
    if (name === "home") post("/api/act/home", { user: this.user });
    this.drawMessages();
    this.drawHome();
    if (focus) byId("tabs").querySelector("[aria-selected=true]").focus();
  }

  drawHome() {
    if (this.tab !== "home") return;
    const view = this.state.homes[this.user];
    fill(byId("home"), view ? renderBlocks(view.blocks, { ...this.context({ view }), inForm: true }) : h("p", { class: "empty" }, "Nothing here yet."));
  }

  drawMessages(toEnd = false) {
    this.drawHead();
    const seen = this.state.messages.filter((message) => message.channel === this.channel && this.sees(message))
      .sort((one, other) => (one.ts < other.ts ? -1 : 1));
    const roots = seen.filter((message) => !message.thread_ts || message.thread_ts === message.ts || message.broadcast);
    this.place(byId("messages"), roots, seen, toEnd, false);
    if (!roots.length) fill(byId("messages"), this.welcome());
    if (!this.thread) return;
    const replies = seen.filter((message) => message.ts === this.thread || message.thread_ts === this.thread);
    this.place(byId("thread-messages"), replies, seen, toEnd, true);
  }

  welcome() {
    const room = this.state.channels.find((each) => each.id === this.channel);
    return h("div", { class: "welcome" }, h("h3", {}, this.channel.startsWith("D") ? "Canary" : `# ${room?.name ?? ""}`),
      h("p", {}, "Type ", h("code", {}, "/canary start payments v2"), " to release payments, or ", h("code", {}, "/canary help"), "."));
  }

  // Only what changed is made anew, so that focus, scrolling and open menus stay where they are.
  place(box, messages, seen, toEnd, inThread) {
    const atEnd = toEnd || box.scrollHeight - box.scrollTop - box.clientHeight < 60;
    const wanted = [];
    let previous = null;
    for (const message of messages) {
      const replies = inThread ? [] : seen.filter((each) => each.thread_ts === message.ts && each.ts !== message.ts && !each.ephemeral_to);
      const close = previous && previous.user === message.user && !previous.replies && !previous.ephemeral
        && !message.ephemeral_to && Number(message.ts) - Number(previous.ts) < 120;
      const key = `${inThread}:${this.user}:${message.channel}:${message.ts}`;
      const version = `${message.edit_count}:${JSON.stringify(message.reactions)}:${message.files.length}:${replies.length}:${close}`;
      let kept = this.nodes.get(key);
      if (!kept || kept.version !== version) {
        const node = this.draw(message, replies, close, inThread);
        const focused = kept?.node.contains(document.activeElement) ? document.activeElement.dataset.action : null;
        if (focused) queueMicrotask(() => refocus(node, focused));
        kept = { version, node };
        this.nodes.set(key, kept);
      }
      wanted.push(kept.node);
      previous = { user: message.user, ts: message.ts, replies: replies.length, ephemeral: message.ephemeral_to };
    }
    for (const old of [...box.children]) if (!wanted.includes(old)) old.remove();
    wanted.forEach((node, index) => { if (box.children[index] !== node) box.insertBefore(node, box.children[index] ?? null); });
    if (atEnd) box.scrollTop = box.scrollHeight;
  }

  draw(message, replies, close, inThread) {
    const author = this.state.users.find((user) => user.id === message.user);
    const when = new Date(Number(message.ts) * 1000);
    const time = h("time", { datetime: when.toISOString(), title: when.toLocaleString() }, when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
    const context = this.context({ message });
    const edited = message.edit_count > 0
      ? h("small", { class: "edited", title: `${message.edit_count} edit${message.edit_count > 1 ? "s" : ""}` }, " (edited)") : null;
    const pinged = message.pings.some((each) => ["channel", "here", "everyone"].includes(each) || this.names.inGroup(each));
    return h("article", {
      class: ["message", close && "close", message.ephemeral_to && "ephemeral", pinged && message.user !== this.user && "pinged"].filter(Boolean).join(" "),
      "aria-label": `${author?.real_name ?? message.user}, ${when.toLocaleTimeString()}`, data: { ts: message.ts },
    },
      close ? h("div", { class: "gutter" }, time) : avatar(author),
      h("div", { class: "body" },
        message.ephemeral_to && h("p", { class: "only-you" }, "👁 Only visible to you"),
        !close && h("div", { class: "byline" }, h("b", {}, author?.real_name ?? message.user), author?.kind === "bot" && h("span", { class: "badge" }, "APP"), time),
        message.broadcast && !inThread && h("p", { class: "only-you" }, "replied to a thread"),
        message.blocks.length
          ? h("div", { class: "blocks" }, renderBlocks(message.blocks, context), edited)
          : h("div", { class: "text" }, mrkdwn(message.text, this.names), edited),
        message.files.map((id) => this.drawFile(id)),
        Object.entries(message.reactions).map(([name, who]) => h("span", { class: "reaction" }, `:${name}: ${who.length}`)),
        !inThread && replies.length > 0 && h("button", { type: "button", class: "replies", onclick: () => this.openThread(message.ts) },
          `${replies.length} ${replies.length === 1 ? "reply" : "replies"}`,
          h("small", {}, h("span", {}, mrkdwn(replies.at(-1).text.split("\n")[0], this.names)))),
        !inThread && !message.ephemeral_to && !replies.length && h("button", { type: "button", class: "reply", onclick: () => this.openThread(message.ts) }, "Reply in thread")));
  }

  drawFile(id) {
    const file = this.state.files.find((each) => each.id === id);
    if (!file) return null;
    const picture = /\.(png|jpe?g|gif)$/i.test(file.name);
    return h("figure", { class: "file" }, h("figcaption", {}, file.title),
      picture ? h("img", { src: this.fileUrl(id), alt: file.alt_text || file.title, class: "large" }) : h("a", { href: this.fileUrl(id), download: file.name }, file.name));
  }

  openThread(ts) {
    const was = this.thread;
    this.thread = ts;
    byId("thread").hidden = !ts;
    fill(byId("thread-messages"));
    if (ts) {
      this.threadComposer.placeholder("Reply, or ask @canary");
      this.drawMessages(true);
      byId("thread-messages").scrollTop = byId("thread-messages").scrollHeight;
      this.threadComposer.input.focus();
    } else if (was) document.querySelector(`[data-ts="${CSS.escape(was)}"] button.replies`)?.focus();
  }

  drawModal() {
    const stack = this.state.stacks[this.user] ?? [];
    this.modals.show(this.state.views.find((view) => view.id === stack.at(-1)), stack.length);
  }
}

function refocus(box, action) {
  if (action) box.querySelector(`[data-action="${CSS.escape(action)}"]`)?.focus();
}

function avatar(author) {
  const bot = author?.id === BOT;
  const letters = (author?.real_name ?? "?").split(" ").map((word) => word[0]).join("").slice(0, 2);
  return h("div", { class: `avatar tone-${[...(author?.id ?? "?")].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % 5} ${bot ? "bot" : ""}`, "aria-hidden": "true" }, bot ? h("img", { src: "/static/icon.svg", alt: "" }) : letters);
}

// The right side: weights beside observed traffic, error rate and p99 over time, nodes, and faults to turn on.
import { fill, h, post } from "./dom.js";
import { chart } from "./chart.js";

const KEPT = 300;
const byId = (id) => document.getElementById(id);

export class Mesh {
  constructor({ toast }) {
    this.toast = toast;
    this.samples = [];
    this.botUp = true;
    this.switches = new Map();
    this.drawSwitches();
  }

  history(samples) {
    this.samples = samples;
    if (samples.length) this.draw();
  }

  sample(sample) {
    this.samples.push(sample);
    if (this.samples.length > KEPT) this.samples.shift();
    this.draw();
  }

  draw() {
    const now = this.samples.at(-1);
    this.drawParts(now.up);
    fill(byId("services"), Object.entries(now.services).map(([name, service]) => this.service(name, service)));
    this.drawNodes(now.nodes);
    for (const [id, box] of this.switches) {
      const on = now.switches[id];
      box.input.disabled = on === null || on === undefined;
      if (!box.busy && typeof on === "boolean") box.input.checked = on;
    }
    if (this.botButton) {
      this.botUp = now.up.Bot ?? true;
      this.botButton.textContent = this.botUp ? "Kill the bot" : "Start the bot";
      this.botButton.className = `button ${this.botUp ? "danger" : "primary"}`;
    }
  }

  drawParts(up) {
    fill(byId("parts"), Object.entries(up).map(([name, there]) => h("li", { class: there ? "up" : "down" },
      h("i", { "aria-hidden": "true" }), name, h("span", { class: "hidden" }, there ? " is up" : " is down"))));
  }

  service(name, service) {
    const versions = [...new Set([...Object.keys(service.weights), ...Object.keys(service.versions)])]
      .filter((version) => version !== "none" && version !== "unknown").sort();
    const read = (field) => (sample, version) => sample.services[name]?.versions[version]?.[field];
    const number = (value, unit, digits = 1) => value === null || value === undefined ? "–" : `${value.toFixed(digits)}${unit}`;
    const rate = Object.values(service.versions).reduce((sum, version) => sum + version.per_s, 0);
    return h("article", { class: "service", "aria-label": name },
      h("header", {}, h("h3", {}, name), h("span", { class: "rate" }, rate ? `${rate.toFixed(0)} requests/s` : "no traffic")),
      h("div", { class: "split" },
        bar("wanted", versions.map((version) => service.weights[version] ?? 0)),
        bar("observed", versions.map((version) => service.versions[version]?.share_percent ?? 0))),
      h("table", { class: "numbers" },
        h("thead", {}, h("tr", {}, ["version", "weight", "share", "errors", "p99"].map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", {}, versions.map((version, index) => {
          const seen = service.versions[version];
          return h("tr", {},
            h("th", { scope: "row" }, h("i", { class: `key version-${index}`, "aria-hidden": "true" }), version),
            h("td", {}, `${service.weights[version] ?? 0}%`), h("td", {}, number(seen?.share_percent, "%")),
            h("td", { class: seen?.error_percent > 1 ? "bad" : "" }, number(seen?.error_percent, "%")), h("td", {}, number(seen?.p99_ms, " ms", 0)));
        }))),
      h("div", { class: "charts" },
        [["errors", "error_percent", "%", 4], ["p99", "p99_ms", " ms", 80], ["share", "share_percent", "%", 100]].map(([label, field, unit, ceiling]) =>
          h("figure", {}, h("figcaption", {}, label),
            chart({ samples: this.samples, read: read(field), versions, ceiling, label: `${name} ${label}`, unit })))));
  }

  drawNodes(nodes) {
    fill(byId("nodes"), Object.entries(nodes).map(([name, node]) => h("div", { class: `node ${node.ready ? "" : "bad"}` },
      h("b", {}, name),
      h("span", {}, node.ready ? "Ready" : "NotReady", node.troubles.map((trouble) => `, ${trouble}`)),
      h("span", { class: node.steal_percent > 2 ? "bad" : "" }, node.steal_percent === null ? "steal: not measured" : `steal ${node.steal_percent.toFixed(1)}%`))));
  }

  async drawSwitches() {
    const { switches, control } = await (await fetch("/api/switches")).json();
    const groups = Map.groupBy ? Map.groupBy(switches, (each) => each.group) : grouped(switches);
    const sections = [...groups].map(([group, rows]) => h("fieldset", {}, h("legend", {}, group), rows.map((row) => this.makeSwitch(row))));
    if (control) {
      this.botButton = h("button", { type: "button", class: "button danger", onclick: () => this.flipBot() }, "Kill the bot");
      sections.push(h("fieldset", {}, h("legend", {}, "Bot"), this.botButton, h("small", {}, " kill -9, then start: the rollout goes on")));
    }
    fill(byId("faults"), h("h2", {}, "Make something go wrong"), h("div", { class: "switches" }, sections));
  }

  makeSwitch(row) {
    if (row.push) {
      return h("button", { type: "button", class: "button small", onclick: () => this.flip(row.id, true) }, row.label);
    }
    const box = { busy: false };
    box.input = h("input", { type: "checkbox", role: "switch", disabled: true, onchange: async (event) => {
      box.busy = true;
      await this.flip(row.id, event.target.checked);
      box.busy = false;
    } });
    this.switches.set(row.id, box);
    return h("label", { class: "switch", data: { switch: row.id } }, box.input, h("i", { "aria-hidden": "true" }), row.label);
  }

  async flip(id, on) {
    const answer = await post(`/api/switches/${id}`, { on });
    if (answer.ok === false || (typeof answer.error === "string")) this.toast(`Could not: ${answer.error}`);
  }

  async flipBot() {
    this.botButton.setAttribute("aria-busy", "true");
    const answer = await post(`/api/bot/${this.botUp ? "kill" : "start"}`);
    this.botButton.removeAttribute("aria-busy");
    if (answer.ok === false) this.toast(`Could not: ${answer.error}`);
  }
}

function bar(label, shares) {
  return h("div", { class: "bar-row" }, h("span", {}, label),
    h("div", { class: "bar", role: "img", "aria-label": `${label}: ${shares.map((share) => share.toFixed(0) + "%").join(" to ")}` },
      shares.map((share, index) => {
        const part = h("i", { class: `version-${index}` });
        part.style.width = `${share}%`;
        return part;
      })));
}

function grouped(rows) {
  const groups = new Map();
  for (const row of rows) groups.set(row.group, [...(groups.get(row.group) ?? []), row]);
  return groups;
}

// A line chart of the last minutes: one line per version, drawn as SVG.
import { svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 64;
const LEAST_S = 30;
const MOST_S = 120;

export function chart({ samples, read, versions, ceiling, label, unit, limit }) {
  const now = samples.at(-1)?.at ?? 0;
  const span = Math.min(MOST_S, Math.max(LEAST_S, now - (samples[0]?.at ?? now)));
  const points = (version) => samples.map((sample) => [sample.at, read(sample, version)]);
  const largest = Math.max(ceiling, ...versions.flatMap((version) => points(version).map(([, value]) => value ?? 0))) * 1.08;
  const x = (at) => WIDTH - ((now - at) / span) * WIDTH;
  const y = (value) => HEIGHT - 2 - (value / largest) * (HEIGHT - 6);
  const last = (version) => [...points(version)].reverse().find(([, value]) => value !== null && value !== undefined)?.[1];
  const summary = versions.map((version) => `${version} ${last(version)?.toFixed(1) ?? "no data"}${unit}`).join(", ");
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": `${label}: ${summary}`, preserveAspectRatio: "none" },
    [0.25, 0.5, 0.75].map((part) => svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part, class: "grid" })),
    limit !== undefined && svg("line", { x1: 0, x2: WIDTH, y1: y(limit), y2: y(limit), class: "limit" }),
    versions.map((version, index) => lines(points(version), x, y).map((path) => svg("path", { d: path, class: `line version-${index}` }))));
}

// One path for each stretch without gaps.
function lines(points, x, y) {
  const paths = [];
  let path = "";
  for (const [at, value] of points) {
    if (value === null || value === undefined || x(at) < -10) {
      if (path) paths.push(path);
      path = "";
    } else path += `${path ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
  }
  if (path) paths.push(path);
  return paths;
}

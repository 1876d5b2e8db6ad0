"use strict";
// The small plot of a target: its value, its limit, what is usual, and where another version of the server came.
// Uses what parts.js has, and the last state of page.js.

const WIDTH = 300, HEIGHT = 64;

function spark(parts, target) {
  const values = target.history.map(([, value]) => value);
  const known = values.filter((value) => value !== null);
  const top = Math.max(target.limit * 1.25, ...known.map((value) => value * 1.08));
  const x = (i) => (i / Math.max(1, values.length - 1)) * WIDTH;
  const y = (value) => HEIGHT - (value / top) * HEIGHT;
  let line = "", area = "", start = -1;
  values.forEach((value, i) => {
    if (value === null) return;
    const first = i === 0 || values[i - 1] === null;
    const end = i === values.length - 1 || values[i + 1] === null;
    const point = `${x(i).toFixed(1)},${y(value).toFixed(1)}`;
    if (first) start = i;
    line += (first ? "M" : "L") + point;
    area += (first ? `M${x(i).toFixed(1)},${HEIGHT}L` : "L") + point;
    if (end) area += `L${x(i).toFixed(1)},${HEIGHT}Z`;
    if (first && end) line += `L${(x(i) + 0.1).toFixed(1)},${y(value).toFixed(1)}`;
  });
  const limit = y(target.limit).toFixed(1);
  const span = target.history.length > 1 ? [target.history[0][0], target.history.at(-1)[0]] : null;
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": inWords(target, known) },
    make("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }));
  if (span) svg.append(...usualLines(target.usual, span, y));
  if (line) svg.append(make("path", { class: "area", d: area }), make("path", { class: "line", d: line }));
  svg.append(make("line", { class: "limit", x1: 0, x2: WIDTH, y1: limit, y2: limit }));
  const newest = values.length - 1;
  if (newest >= 0 && values[newest] !== null && start >= 0) {
    const at = { x1: x(newest), x2: x(newest), y1: y(values[newest]), y2: y(values[newest]) };
    svg.append(make("line", { class: "last", ...at }));
  }
  const label = make("span", { class: "spark-limit" }, target.limit_text);
  label.style.top = `${(y(target.limit) / HEIGHT) * 100}%`;
  parts.spark.replaceChildren(svg, label, ...deploys(target.service, span));
  if (parts.pointer) tip(parts, parts.pointer);
}

// A plot for who cannot see it.
function inWords(target, known) {
  const range = known.length ? `from ${inUnit(Math.min(...known), target.unit)} to ${inUnit(Math.max(...known), target.unit)}` : "nothing measured";
  const since = target.history.length ? lasting(last.now - target.history[0][0]) : "";
  return `${target.title}, the last ${since}: ${range}; limit ${target.limit_text}. ${target.usual?.text ?? ""}`;
}

// The usual value, where drift is told, and a quiet band between them. What is off the plot is not drawn.
function usualLines(usual, [from, to], y) {
  const place = (at) => Math.min(WIDTH, Math.max(0, ((at - from) / (to - from)) * WIDTH)).toFixed(1);
  const points = (line) => {
    const steps = (line ?? []).filter(([, value]) => y(value) >= 0 && y(value) <= HEIGHT);
    return steps.length ? [...steps, [to, steps.at(-1)[1]]].map(([at, value]) => `${place(at)},${y(value).toFixed(1)}`) : [];
  };
  const baseline = points(usual?.baseline);
  const found = [];
  for (const bound of [points(usual?.upper), points(usual?.lower)]) {
    if (!bound.length) continue;
    if (baseline.length) found.push(make("path", { class: "band", d: `M${baseline.join("L")}L${bound.reverse().join("L")}Z` }));
    found.push(make("path", { class: "told", d: `M${bound.join("L")}` }));
  }
  if (baseline.length) found.push(make("path", { class: "usual-line", d: `M${baseline.join("L")}` }));
  return found;
}

// Where another version of the server was first seen.
function deploys(service, span) {
  const known = last.versions?.[service] ?? []; // the newest first; the oldest may have run long before it was seen
  const seen = known.slice(0, -1).filter(({ since }) => span && since > span[0] && since < span[1]);
  return seen.map(({ version, since }, i) => {
    const share = (since - span[0]) / (span[1] - span[0]);
    const mark = make("span", { class: `deploy ${share > 0.6 ? "late" : ""}`, title: `${version}, first seen ${clock(since)}` },
      i ? "" : make("b", {}, version));
    mark.style.left = `${share * 100}%`;
    return mark;
  });
}

// The value under the pointer.
function tip(parts, event) {
  parts.pointer = event;
  parts.spark.querySelectorAll(".hair, .spark-tip").forEach((each) => each.remove());
  const history = parts.target.history;
  if (!event || !history.length) return;
  const box = parts.spark.getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  const [at, value] = history[Math.round(share * (history.length - 1))];
  const text = value === null ? "nothing measured" : inUnit(value, parts.target.unit);
  const label = make("span", { class: "spark-tip" }, `${clock(at)}  ${text}`);
  label.style.left = `${Math.min(0.75, Math.max(0.25, share)) * 100}%`;
  parts.spark.querySelector("svg").append(make("line", { class: "hair", x1: share * WIDTH, x2: share * WIDTH, y1: 0, y2: HEIGHT }));
  parts.spark.append(label);
}

function inUnit(value, unit) {
  const short = (number) => String(Number(number.toPrecision(3)));
  if (unit === "seconds") return value < 1 ? `${short(value * 1000)} ms` : `${short(value)} s`;
  if (unit === "bytes") return value < 1e9 ? `${short(value / 1e6)} MB` : `${short(value / 1e9)} GB`;
  if (unit === "percent") return `${Number((value * 100).toPrecision(4))} %`;
  if (unit === "number") return String(Number(value.toPrecision(6)));
  const count = Math.round(value);
  return `${count} ${count === 1 ? unit.replace(/s$/, "") : unit}`;
}

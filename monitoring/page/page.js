"use strict";
// Polls the monitor and draws what it says. Everything from the monitor goes into the page as text, never as markup.

const EVERY = 2000; // ms between polls
const PATIENCE = 4000; // ms until an answer counts as none
const FILL_SPAN = 1.5; // the bar ends at one and a half times the limit

const byId = (id) => document.getElementById(id);
let last = null; // the newest state, and the moment (performance.now) it came
let lastAt = 0;
let asking = false;
const drawn = new Map(); // what each section was last drawn from

const serverNow = () => last.now + (performance.now() - lastAt) / 1000;

// A text that grows older by itself, between polls too.
function age(at, before = "", after = "") {
  return make("span", { "data-at": at, "data-before": before, "data-after": after }, before + lasting(serverNow() - at) + after);
}

function grow() {
  if (!last) return;
  for (const each of document.querySelectorAll("[data-at]")) {
    const text = each.dataset.before + lasting(serverNow() - Number(each.dataset.at)) + each.dataset.after;
    if (each.textContent !== text) each.textContent = text;
  }
}

// Draw a section only when what it shows has changed: a text being read or selected stays in place.
function section(id, data, build) {
  const text = JSON.stringify(data);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  byId(id).replaceChildren(...build(data));
}

function rows(list, empty, build) {
  return list.length ? [make("ul", { class: "rows" }, ...list.map(build))] : [make("p", { class: "none" }, empty)];
}

// ---- targets

function card(target) {
  const parts = {
    root: make("article", { class: "card" }), pill: make("span", { class: "pill" }), value: make("p", { class: "value" }),
    usual: make("p", { class: "usual" }), fill: make("i"), barWords: make("div", { class: "bar-words" }), spark: make("div", { class: "spark" }), from: make("span"), note: make("p", { class: "note" }),
  };
  const bar = make("div", { class: "bar", "aria-hidden": "true" }, parts.fill, make("b"));
  bar.lastChild.style.left = `${100 / FILL_SPAN}%`;
  const mark = make("span", {}, target.limit_text);
  mark.style.left = `${100 / FILL_SPAN}%`;
  parts.barWords.append(make("span", {}, "0"), mark);
  parts.root.append(
    make("h3", {}, target.title),
    make("div", { class: "card-head" }, make("p", { class: "measure" }, target.measure), parts.pill),
    parts.value,
    make("p", { class: "promise" }, "target ", make("b", {}, target.promise)),
    bar, parts.barWords, parts.spark,
    make("div", { class: "axis" }, parts.from, make("span", {}, "now")), parts.note, parts.usual);
  parts.root.tabIndex = -1; // where a link of a message leads
  parts.spark.addEventListener("pointermove", (event) => tip(parts, event));
  parts.spark.addEventListener("pointerleave", () => tip(parts, null));
  return parts;
}

function fillCard(parts, target) {
  parts.target = target;
  parts.root.dataset.state = target.state;
  parts.root.setAttribute("aria-label",
    `${target.title}: ${target.text}, target ${target.promise}, ${STATES[target.state][1]}`);
  parts.pill.dataset.state = target.state;
  parts.pill.dataset.sign = STATES[target.state][0];
  parts.pill.textContent = STATES[target.state][1];
  const [, number, unit] = /^([-\d.]+) (\S+)$/.exec(target.text) || [];
  if (number) {
    parts.value.replaceChildren(number, make("span", { class: "unit" }, unit));
    delete parts.value.dataset.words;
  } else {
    parts.value.replaceChildren(target.text);
    parts.value.dataset.words = "";
  }
  parts.fill.style.width = `${Math.min(1, Math.max(0, (target.fill ?? 0) / FILL_SPAN)) * 100}%`;
  const firing = { firing: target.state === "ok" ? "Its alert ends unless it is missed again. " : "Its alert is firing. ", pending: "Its alert waits to see whether it lasts. " }[target.alert] || "";
  const note = target.note ? `${target.note[0].toUpperCase()}${target.note.slice(1)}. ` : "";
  parts.note.replaceChildren(age(target.since, `${word(target.state)} for `, ". "), note, firing);
  drawUsual(parts.usual, target.usual);
  parts.from.textContent = target.history.length ? `${lasting(last.now - target.history[0][0])} ago` : "";
  spark(parts, target);
}

// What the plot's quiet lines mean, or how long there will be none.
function drawUsual(place, usual) {
  const key = (kind, lines) => lines?.length ? make("i", { class: `key key-${kind}`, "aria-hidden": "true" }) : "";
  place.replaceChildren(key("usual", usual?.baseline), key("told", usual?.upper?.length ? usual.upper : usual?.lower), usual?.text ?? "");
  place.hidden = !usual?.text;
}

const word = (state) => STATES[state][1][0].toUpperCase() + STATES[state][1].slice(1);

const cards = new Map();

function drawTargets(targets) {
  const keys = targets.map((target) => `${target.service}/${target.target}`);
  if (keys.join() !== [...cards.keys()].join()) {
    cards.clear();
    const services = [...new Set(targets.map((target) => target.service))];
    byId("targets").replaceChildren(...services.flatMap((service) => {
      const grid = make("div", { class: "cards" });
      for (const target of targets.filter((each) => each.service === service)) {
        const parts = card(target);
        cards.set(`${target.service}/${target.target}`, parts);
        grid.append(parts.root);
      }
      const version = make("span", { class: "version", "data-service": service });
      return [make("h2", { class: "service" }, service, version), grid];
    }));
    followLink();
  }
  for (const each of document.querySelectorAll(".version")) {
    const [newest] = last.versions?.[each.dataset.service] ?? [];
    const text = newest ? ` · ${newest.version}, first seen ${clock(newest.since)}` : "";
    if (each.textContent !== text) each.textContent = text;
  }
  targets.forEach((target, i) => fillCard(cards.get(keys[i]), target));
}

// A message leads to #service/target.
function followLink() {
  let key = "";
  try {
    key = decodeURIComponent(location.hash.slice(1));
  } catch {
    return; // somebody's half of an address
  }
  const parts = cards.get(key);
  if (!parts) return;
  parts.root.scrollIntoView({ block: "center" });
  parts.root.focus();
}
addEventListener("hashchange", followLink);

// ---- the lists

function alertRow(alert) {
  return make("li", {},
    make("div", {}, pill(alert.state), alert.silenced_by?.length ? pill("silenced") : "", alert.acknowledged ? pill("seen") : ""),
    make("div", { class: "what" }, make("strong", {}, alert.summary || alert.name),
      make("small", {}, [alert.name, alert.severity, alert.service].filter(Boolean).join(" · ")),
      alert.description && make("small", {}, alert.description),
      ...(alert.details ?? []).map(([head, text]) => make("small", {}, make("b", {}, `${head}: `), text)),
      alert.recovering ? make("small", {}, "The promise is kept again; the alert ends unless it is broken once more.") : null,
      runbook(alert)),
    make("div", { class: "when" }, `since ${clock(alert.since)}`, make("small", {}, age(alert.since)), acknowledge(alert)));
}

// What to do about it. An address comes from a rule file: only one that leads to a page is a link.
function runbook(alert) {
  if (!/^https?:\/\//.test(alert.runbook_url)) return null;
  const link = make("a", { href: alert.runbook_url, target: "_blank", rel: "noreferrer" }, "Runbook");
  link.setAttribute("aria-label", `Runbook of ${alert.name}, in a new tab`);
  return make("small", {}, link);
}

// Whoever looks after an alert says so: it is not repeated then, and not escalated. Or nobody wants to hear of it.
function acknowledge(alert) {
  const seen = alert.acknowledged ? make("small", {}, `seen by ${alert.acknowledged.author}`) : "";
  if (alert.state !== "firing" || !alert.fingerprint) return seen;
  const what = alert.summary || alert.name;
  const act = (label, silence, send) => {
    const button = make("button", { type: "button", "aria-haspopup": "dialog" }, label);
    button.setAttribute("aria-label", `${label}: ${what}`);
    button.addEventListener("click", () => openDialog(label, what, silence, send));
    return button;
  };
  const labels = { alertname: alert.name, service: alert.service, target: alert.target };
  const matchers = Object.entries(labels).filter(([, value]) => value).map(([name, value]) => ({ name, value }));
  return make("div", {}, seen || act("Acknowledge", false, ({ author }) =>
    send("POST", "acks", { alert: alert.fingerprint, author })),
  alert.silenced_by?.length ? "" : act("Silence", true, ({ author, reason, lasts }) =>
    send("POST", "silences", { matchers, for: lasts, author, reason })));
}

// The next 8 o'clock that is at least an hour away.
function morning() {
  const at = new Date(Date.now() + 3600e3);
  if (at.getHours() >= 8) at.setDate(at.getDate() + 1);
  at.setHours(8, 0, 0, 0);
  return at;
}

// Asks who, and of a silence how long and why; then does it, and says what went wrong where it did.
function openDialog(label, what, silence, send) {
  const dialog = byId("act"), form = byId("act-form");
  byId("act-title").textContent = label;
  byId("act-about").textContent = what;
  byId("act-problem").hidden = true;
  byId("act-do").textContent = label;
  form.elements.author.value = localStorage.getItem("author") ?? "";
  form.elements.reason.value = "";
  byId("act-silence").disabled = byId("act-silence").hidden = !silence;
  const end = morning();
  byId("act-morning").textContent = `until ${end.toLocaleDateString([], { weekday: "long" })}, 8:00`;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const author = form.elements.author.value.trim(), reason = form.elements.reason.value.trim();
    const chosen = form.elements.lasts.value;
    const lasts = chosen === "morning" ? `${Math.round((end - Date.now()) / 60e3)}m` : chosen;
    localStorage.setItem("author", author);
    byId("act-do").disabled = true;
    try {
      await send({ author, reason, lasts });
      dialog.close();
      await ask();
    } catch (error) {
      byId("act-problem").textContent = `It was not done: ${error.message}`;
      byId("act-problem").hidden = false;
    } finally {
      byId("act-do").disabled = false;
    }
  };
  dialog.showModal();
}

// Who holds back what, why and until when.
function silenceRow(silence) {
  const button = make("button", { type: "button" }, "End");
  button.setAttribute("aria-label", `End the silence of ${silence.matchers.join(" ")}`);
  button.addEventListener("click", () => change("DELETE", `silences/${silence.id}`, button));
  return make("li", {},
    pill("silenced"),
    make("div", { class: "what" }, make("strong", {}, silence.matchers.join(" ")),
      make("small", {}, `${silence.author}: ${silence.reason}`)),
    make("div", { class: "when" }, `until ${clock(silence.ends)}`, button));
}

function maintenanceRow(window) {
  const what = [...window.services, ...window.targets].join(", ") || "everything";
  return make("li", {},
    pill("silenced"),
    make("div", { class: "what" }, make("strong", {}, what), make("small", {}, `maintenance: ${window.name}`)),
    make("div", { class: "when" }, `until ${clock(window.ends)}`));
}

// What changes something is declared as JSON: a page elsewhere cannot send that.
async function send(method, path, body = {}) {
  const options = { method, headers: { "Content-Type": "application/json" }, signal: AbortSignal.timeout(PATIENCE) };
  if (method === "POST") options.body = JSON.stringify(body);
  const answer = await fetch(`api/v1/${path}`, options);
  if (!answer.ok) throw new Error((await answer.json()).error);
}

async function change(method, path, button) {
  button.disabled = true;
  try {
    await send(method, path);
    await ask();
  } catch (error) {
    button.title = `It was not done: ${error.message}`;
    button.textContent = "not done";
  } finally {
    button.disabled = false;
  }
}

function notificationRow(message) {
  const state = message.state === "queued" && message.attempts ? "retrying" : message.state;
  const took = message.finished && message.state === "sent" ? ` in ${inUnit(message.finished - message.created, "seconds")}` : "";
  const tries = message.attempts > 1 ? `, ${message.attempts} tries` : "";
  return make("li", {},
    pill(state),
    make("div", { class: "what" }, make("details", {}, make("summary", {}, message.title), make("p", {}, message.body)),
      make("small", {}, `to ${message.channel}${took}${tries}`),
      message.reason && make("small", { class: "bad" }, message.reason)),
    make("div", { class: "when" }, clock(message.created), make("small", {}, age(message.created, "", " ago"))));
}

function collectorRow(collector) {
  const state = collector.up === null ? "unknown" : collector.up ? "up" : "down";
  const what = collector.job === "server" ? `server ${collector.service}` : collector.job;
  return make("li", {},
    pill(state),
    make("div", { class: "what" }, make("strong", {}, what), make("small", {}, collector.url),
      collector.error && make("small", { class: "bad" }, collector.error)),
    make("div", { class: "when" }, collector.up ? `${collector.samples} samples in ${(collector.duration * 1000).toFixed(0)} ms` : "",
      collector.up === null ? null : make("small", {}, age(collector.since, `${state} for `))));
}

// ---- the whole

function verdict(state) {
  const names = (wanted) => state.targets.filter((target) => target.state === wanted).map((target) => target.title);
  const missed = names("missed"), silent = names("no_data"), waiting = names("waiting");
  const others = state.alerts.filter((alert) => alert.state === "firing" && alert.name === "ServiceDown");
  if (others.length) return ["missed", others.map((alert) => alert.summary || alert.name).join("; ")];
  if (missed.length) return ["missed", `Missed: ${missed.join(", ")}`];
  if (silent.length) return ["no_data", `No data: ${silent.join(", ")}`];
  if (waiting.length) return ["waiting", `Waiting for first measurements: ${waiting.join(", ")}`];
  if (names("idle").length === state.targets.length) return ["idle", "No traffic"];
  return ["ok", "Every target is kept"];
}

function draw(state) {
  const [tone, text] = verdict(state);
  if (byId("verdict").textContent !== text) byId("verdict").textContent = text;
  byId("verdict").dataset.state = tone;
  const missed = state.targets.filter((target) => target.state === "missed").length;
  const firing = state.alerts.filter((alert) => alert.state === "firing").length;
  byId("firing").hidden = !firing;
  byId("firing").textContent = `${firing} ${firing === 1 ? "alert fires" : "alerts fire"}`;
  document.body.dataset.firing = firing ? "yes" : "no";
  document.title = missed ? `(${missed}) missed – anvil-monitor` : "anvil-monitor";
  icon(tone);
  drawTargets(state.targets);
  section("alerts", state.alerts, (list) => rows(list, "Nothing is firing.", alertRow));
  const held = [...(state.maintenance ?? []), ...(state.silences ?? [])];
  section("silences", held, (list) => rows(list, "", (each) => each.matchers ? silenceRow(each) : maintenanceRow(each)));
  byId("silences-panel").hidden = !held.length;
  const silent = state.channels.length ? "Nothing was sent yet." : "No channel is configured, so nobody is told.";
  section("notifications", [state.notifications, silent], ([list]) => rows(list.slice(0, 8), silent, notificationRow));
  section("collectors", state.collectors.map((each) => ({ ...each, at: 0, duration: Math.round(each.duration * 1000) / 1000 })),
    (list) => rows(list, "Nothing is collected.", collectorRow));
  section("problems", state.problems, (list) => list.map((each) => make("li", {}, each)));
  byId("problems").hidden = state.problems.length === 0;
  byId("about").textContent = `anvil-monitor ${state.version} · ${state.series} series · running since ${clock(state.started)}`;
}

function icon(tone) {
  const colour = { ok: "#1f9d61", missed: "#d92f43", no_data: "#c98212" }[tone] || "#7a8394";
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${colour}"/></svg>`;
  const href = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  if (byId("icon").getAttribute("href") !== href) byId("icon").setAttribute("href", href);
}

// Whether what is seen is of now: the monitor answers, and it evaluates.
function showLink(problem) {
  let text = "live";
  let stale = problem;
  if (!problem && last) {
    const late = serverNow() - last.evaluated_at;
    if (late > 4 * last.evaluation_interval + 5) stale = `The monitor answers, but has evaluated nothing for ${lasting(late)}.`;
    else text = `live, evaluated ${lasting(late)} ago`;
  }
  document.body.dataset.link = stale ? "stale" : last ? "live" : "waiting";
  byId("link-text").textContent = stale ? "not live" : text;
  byId("stale").hidden = !stale;
  if (stale && byId("stale").textContent !== stale) byId("stale").textContent = stale;
  if (stale) {
    document.title = "(not live) anvil-monitor";
    icon("");
  }
}

async function ask() {
  if (asking) return;
  asking = true;
  try {
    const answer = await fetch("api/v1/targets-state", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    last = (await answer.json()).data;
    lastAt = performance.now();
    draw(last);
    showLink("");
  } catch (error) {
    const seen = last ? ` What you see is from ${clock(last.now)}, ${lasting((performance.now() - lastAt) / 1000)} ago.` : "";
    const why = String(error.message).startsWith("it answered") ? ` (${error.message})` : "";
    showLink(`The monitor itself cannot be reached${why}: nothing below is live, and nobody may be told.${seen}`);
  } finally {
    asking = false;
  }
}

byId("act-cancel").addEventListener("click", () => byId("act").close());
setInterval(() => document.hidden || ask(), EVERY);
setInterval(grow, 1000);
document.addEventListener("visibilitychange", () => document.hidden || ask());
ask();

"use strict";
// What the page is put together from: an element, a state in a word, a time.

const STATES = {
  ok: ["✓", "kept"], missed: ["✕", "missed"], idle: ["–", "idle"], waiting: ["…", "waiting"], no_data: ["?", "no data"],
  firing: ["!", "firing"], pending: ["…", "pending"], up: ["✓", "up"], down: ["✕", "down"], unknown: ["…", "not yet"],
  silenced: ["–", "silenced"], seen: ["✓", "seen"], sent: ["✓", "delivered"], queued: ["→", "waiting"], retrying: ["↻", "retrying"], dead: ["✕", "given up"],
};

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

const pill = (state) => make("span", { class: "pill", "data-state": state, "data-sign": STATES[state][0] }, STATES[state][1]);

function lasting(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function clock(seconds) {
  const at = new Date(seconds * 1000);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  const today = new Date().toDateString() === at.toDateString();
  return today ? time : `${at.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}`;
}

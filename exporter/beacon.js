// Page load and web vitals of real visits, in seconds, posted to where this script came from (without ".js").
// Definitions: https://web.dev/articles/vitals. It never throws into the page, and sends at most two beacons a visit.
(() => {
  const me = document.currentScript;
  if (!me || !me.src || !navigator.sendBeacon || !window.PerformanceObserver) return;
  const to = me.src.replace(/\.js(\?.*)?$/, "");
  const page = location.pathname;
  const seconds = (ms) => Math.round(ms) / 1000;
  const nav = () => performance.getEntriesByType("navigation")[0];
  const start = () => (nav() && nav().activationStart) || 0;
  const since = (ms) => seconds(Math.max(0, ms - start()));
  const vitals = {};

  const observe = (type, take, more) => {
    try {
      const observer = new PerformanceObserver((list) => list.getEntries().forEach(take));
      observer.observe({ type, buffered: true, ...more });
      return () => observer.takeRecords().forEach(take);
    } catch {
      return () => {};
    }
  };

  // A page that was hidden while it loaded was not waited for: its paints say nothing.
  let hidden = document.visibilityState === "hidden" ? 0 : Infinity;
  const flush = [
    observe("paint", (e) => {
      if (e.name === "first-contentful-paint" && e.startTime < hidden) vitals.fcp = since(e.startTime);
    }),
    observe("largest-contentful-paint", (e) => {
      if (e.startTime < hidden) vitals.lcp = since(e.startTime);
    }),
    // The worst session of shifts: gaps under 1 s, 5 s at most.
    (() => {
      let sum = 0, first = 0, last = 0;
      vitals.cls = 0;
      return observe("layout-shift", (e) => {
        if (e.hadRecentInput) return;
        if (e.startTime - last > 1000 || e.startTime - first > 5000) { sum = 0; first = e.startTime; }
        last = e.startTime;
        sum += e.value;
        vitals.cls = Math.max(vitals.cls, Math.round(sum * 10000) / 10000);
      });
    })(),
    // The slowest interaction.
    observe("event", (e) => {
      if (e.interactionId) vitals.inp = Math.max(vitals.inp || 0, seconds(e.duration));
    }, { durationThreshold: 40 }),
  ];

  const send = (values) => navigator.sendBeacon(to, JSON.stringify({ page, ...values }));

  const loaded = () => setTimeout(() => {
    const n = nav();
    if (n && n.loadEventEnd > 0) send({ load: since(n.loadEventEnd), ttfb: since(n.responseStart) });
  });
  if (document.readyState === "complete") loaded();
  else addEventListener("load", loaded);

  let sent = false;
  const last = () => {
    if (document.visibilityState !== "hidden" || sent) return;
    hidden = Math.min(hidden, performance.now());
    flush.forEach((take) => take());
    sent = true;
    send(vitals);
  };
  addEventListener("visibilitychange", last, true);
  addEventListener("pagehide", () => {
    if (!sent) { sent = true; flush.forEach((take) => take()); send(vitals); }
  }, true);
})();

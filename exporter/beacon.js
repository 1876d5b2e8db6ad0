// Page loads, route changes and web vitals of real visits, in seconds, posted to where this script came from (without
// ".js") or to data-endpoint. data-sample="0.1" measures one visit in ten. It sets no cookie, stores nothing, knows no
// visitor, and measures nobody who asks not to be tracked. What each number means: docs/browser.md.
// Definitions: https://web.dev/articles/vitals. Comments are lines of their own: they are left out when it is served.
(() => {
  const me = document.currentScript;
  const mark = Symbol.for("anvil-monitor");
  if (!me || !me.src || window[mark] || !window.PerformanceObserver) return;
  if (navigator.globalPrivacyControl || navigator.doNotTrack === "1") return;
  // Two script tags are one measurement.
  window[mark] = true;
  if (!(Math.random() < (me.dataset.sample || 1))) return;

  const to = new URL(me.dataset.endpoint || me.src.replace(/\.js(\?.*)?$/, ""), location).href;
  // A page is at rest after so many milliseconds without a change or an answer; one that never is, is not waited for.
  const QUIET = 500;
  const LIMIT = 30000;
  const types = PerformanceObserver.supportedEntryTypes || [];
  const now = () => performance.now();
  const seconds = (ms) => Math.round(Math.max(0, ms)) / 1000;
  const interactions = () => performance.interactionCount || 0;
  const navigation = () => performance.getEntriesByType("navigation")[0] || {};
  const activation = () => navigation().activationStart || 0;

  const send = (page, values) => {
    const body = JSON.stringify({ page, ...values });
    // Unlike sendBeacon, fetch sends no cookies to another origin, and says where it comes from whatever the policy.
    if ("keepalive" in Request.prototype) fetch(to, { method: "POST", body, keepalive: true }).catch(() => {});
    else navigator.sendBeacon(to, body);
  };

  // A view is a page load, a return from the back/forward cache or a route. Those not sent yet, the current one last:
  // a browser tells of a click after the route that it led to has begun.
  let views = [];
  let view;
  const begin = (from, kind, values) => {
    view = {
      from, kind, values, page: location.pathname, hidden: Infinity, input: Infinity,
      slow: [], count: interactions(), cls: 0, sum: 0, first: 0, last: 0,
    };
    views.push(view);
    return view;
  };

  const report = (v) => {
    views = views.filter((each) => each !== v);
    const n = (v.until || interactions()) - v.count;
    const worst = v.slow[Math.min(v.slow.length - 1, Math.floor(n / 50))];
    if (worst) v.values.inp = seconds(worst.duration);
    // An interaction too quick to be told of; of the first one on a page the browser tells anyway.
    else if (n > 0 && v.kind !== "load") v.values.inp = 0.008;
    if (types.includes("layout-shift") && (v.kind === "route" || "fcp" in v.values)) {
      v.values.cls = Math.round(v.cls * 10000) / 10000;
    }
    if (Object.keys(v.values).length) send(v.page, v.values);
  };

  const shift = (v, e) => {
    // The worst session of shifts: gaps under 1 s, 5 s at most.
    if (e.startTime - v.last >= 1000 || e.startTime - v.first >= 5000) {
      v.sum = 0;
      v.first = e.startTime;
    }
    v.last = e.startTime;
    v.sum += e.value;
    v.cls = Math.max(v.cls, v.sum);
  };

  const interaction = (v, e) => {
    // The ten slowest are enough for the slowest but one of each fifty.
    const known = v.slow.find((each) => each.id === e.interactionId);
    if (known) known.duration = Math.max(known.duration, e.duration);
    else v.slow.push({ id: e.interactionId, duration: e.duration });
    v.slow = v.slow.sort((a, b) => b.duration - a.duration).slice(0, 10);
  };

  const routePaint = (e) => {
    const paint = e && e.largestContentfulPaint;
    const at = (paint && paint.renderTime) || Infinity;
    if (at < view.hidden && at < view.input) view.values.lcp = seconds(at - e.startTime);
  };

  const take = (e) => {
    const type = e.entryType;
    const v = views.filter((each) => each.from <= e.startTime).pop();
    if (type === "resource") {
      if (e.name !== to) busy(e.startTime, e.startTime + e.duration);
    } else if (type === "soft-navigation") {
      if (view && view.kind === "route" && new URL(e.name).pathname === view.page) {
        view.cause = e.interactionId;
        if (e.getLargestInteractionContentfulPaint) routePaint(e.getLargestInteractionContentfulPaint());
      }
    } else if (type === "interaction-contentful-paint") {
      if (view && view.cause && view.cause === e.interactionId) routePaint(e);
    } else if (!v) {
      // Of a view that is sent already.
    } else if (type === "layout-shift") {
      if (!e.hadRecentInput) shift(v, e);
    } else if (type === "event" || type === "first-input") {
      if (e.interactionId) interaction(v, e);
    } else if (v.kind === "load" && e.startTime < v.hidden) {
      const value = seconds(e.startTime - activation());
      if (e.name === "first-contentful-paint") v.values.fcp = value;
      if (type === "largest-contentful-paint" && e.startTime < v.input) v.values.lcp = value;
    }
  };
  const observer = new PerformanceObserver((list) => list.getEntries().forEach(take));

  // What the page did since the last input, as spans of time at least QUIET apart (so there are few).
  let since = -Infinity;
  let stop = 0;
  let spans = [];
  const busy = (from, until) => {
    if (from < since || from > stop) return;
    const near = spans.find((span) => from <= span[1] + QUIET && until >= span[0] - QUIET);
    if (!near) spans.push([from, until]);
    else near.splice(0, 2, Math.min(near[0], from), Math.max(near[1], until));
  };
  // When it came to rest, from a moment on.
  const rest = (from, before) => spans.sort((a, b) => a[0] - b[0]).reduce(
    (end, span) => (span[0] < before && span[0] <= end + QUIET && span[1] > end ? span[1] : end), from);
  const mutations = new MutationObserver(() => busy(now(), now()));
  let timer;
  const watch = () => {
    stop = now() + LIMIT;
    mutations.observe(document, { subtree: true, childList: true, characterData: true });
    clearTimeout(timer);
    timer = setTimeout(() => {
      const v = view;
      settle();
      mutations.disconnect();
      since = -Infinity;
      spans = [];
      if (v && v.values.soft !== undefined) {
        send(v.page, { soft: v.values.soft });
        delete v.values.soft;
      }
    }, LIMIT);
  };
  // A route change took from the input that led to it without a pause, else from itself, until the page was at rest.
  const settle = () => {
    const changed = view && view.changed;
    if (!changed) return;
    view.changed = 0;
    const start = rest(since, changed) + QUIET >= changed ? since : changed;
    const ended = rest(changed, Infinity);
    if (ended + QUIET < stop) view.values.soft = seconds(ended - start);
  };

  const input = (e) => {
    if (!e.isTrusted) return;
    settle();
    if (view) view.input = Math.min(view.input, e.timeStamp);
    since = e.timeStamp;
    spans = [];
    watch();
  };

  let here;
  const stay = () => { here = { pathname: location.pathname, search: location.search }; };
  let loaded = false;
  const changed = (how) => {
    const was = here;
    stay();
    // Replacing the query is keeping it up to date; another hash is the same page.
    if (was.pathname === here.pathname && (how === "replace" || was.search === here.search)) return;
    const t = now();
    if (view && view.input === Infinity && how !== "traverse") {
      // A redirect: the page that was still on its way is this one.
      const coming = view.kind === "load" ? !loaded : view.changed && rest(view.changed, Infinity) + QUIET >= t;
      if (coming) {
        view.page = here.pathname;
        return;
      }
    }
    settle();
    if (view) {
      const old = view;
      old.until = interactions();
      setTimeout(() => views.includes(old) && report(old), 3000);
    }
    begin(t, "route", {}).changed = t;
    if (!(t - since < LIMIT)) {
      since = t;
      spans = [];
    }
    watch();
  };

  const end = (e) => {
    if (e.type !== "pagehide" && document.visibilityState !== "hidden") return;
    if (view) view.hidden = Math.min(view.hidden, e.timeStamp);
    observer.takeRecords().forEach(take);
    settle();
    views.forEach(report);
    view = undefined;
  };

  const start = () => {
    const first = begin(0, "load", {});
    const past = performance.getEntriesByType("visibility-state");
    const hidden = past.find((e) => e.name === "hidden" && e.startTime >= activation());
    first.hidden = hidden ? hidden.startTime : document.visibilityState === "hidden" ? 0 : Infinity;
    ["paint", "largest-contentful-paint", "layout-shift", "event", "first-input", "resource", "soft-navigation",
      "interaction-contentful-paint"].filter((type) => types.includes(type)).forEach((type) =>
      observer.observe({ type, buffered: true, durationThreshold: 40 }));

    stay();
    if (window.navigation) {
      window.navigation.addEventListener("currententrychange", (e) => changed(e.navigationType));
    } else {
      for (const how of ["push", "replace"]) {
        const real = history[`${how}State`];
        history[`${how}State`] = function (...given) {
          real.apply(this, given);
          changed(how);
        };
      }
      addEventListener("popstate", () => changed("traverse"));
    }
    for (const type of ["click", "keydown"]) addEventListener(type, input, true);
    addEventListener("visibilitychange", end, true);
    addEventListener("pagehide", end, true);
    addEventListener("pageshow", (e) => {
      if (!e.persisted) return;
      const v = begin(e.timeStamp, "return", { ttfb: 0 });
      requestAnimationFrame(() => requestAnimationFrame(() => {
        v.values.fcp = v.values.lcp = seconds(now() - e.timeStamp);
      }));
    }, true);

    const done = () => setTimeout(() => {
      const { loadEventEnd, responseStart } = navigation();
      const values = {};
      loaded = true;
      // A page that was hidden while it loaded was not waited for.
      if (loadEventEnd > 0 && loadEventEnd < first.hidden) values.load = seconds(loadEventEnd - activation());
      if (responseStart > 0 && responseStart < now()) values.ttfb = seconds(responseStart - activation());
      if (Object.keys(values).length) send(first.page, values);
    });
    if (document.readyState === "complete") done();
    else addEventListener("load", done);
  };
  // A page that is rendered ahead counts once somebody looks at it.
  if (document.prerendering) document.addEventListener("prerenderingchange", start, { once: true });
  else start();
})();

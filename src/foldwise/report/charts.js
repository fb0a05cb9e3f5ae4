"use strict";
// The charts of a report page: functions from the study inside the page to SVG. Colors are CSS variables, so that light
// and dark need no second drawing; texts reach the page as text nodes only.
const study = JSON.parse(document.getElementById("data").textContent);

const charts = (() => {
  const { trials, outcome } = study;
  const [ink, soft, line, accent, warm, paper, band] = "ink soft line accent warm paper band"
    .split(" ")
    .map((name) => `var(--${name})`);
  const curved = trials.filter((t) => t.curve);
  const known = (v) => v !== null && v !== undefined && Number.isFinite(v);

  function number(v, digits = study.digits) {
    if (!known(v)) return "–";
    const text = Math.abs(v) >= 1e7 ? v.toExponential(2).replace("e+", "e") : d3.format(`,.${digits}f`)(v);
    return text.replace("-", "−");
  }

  const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

  // Three significant digits, with k and M for thousands and millions.
  function brief(v) {
    if (!known(v)) return "–";
    return d3
      .format(Math.abs(v) >= 1e4 ? ".3~s" : ".3~g")(v)
      .replace("-", "−");
  }

  const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const placed = (t) => `${t.number}  ${t.name}`;

  // Axes: a domain is [from, to].

  const clamp = (v, [from, to]) => Math.min(to, Math.max(from, v));
  const side = (v, [from, to]) => (v < from ? -1 : v > to ? 1 : 0);
  const padded = (from, to, share) => share * (to - from) || 0.1 * Math.max(Math.abs(from), Math.abs(to)) || 1;

  // The domain in which spans ([from, to] each) can be compared: all of them, but for the few (a constant predictor,
  // a diverged trial) that lie five times as far from the middle as most and would squeeze the rest together.
  function comparable(spans) {
    const ends = spans.map((s) => d3.extent(s.filter(known))).filter((s) => known(s[0]));
    if (!ends.length) return [0, 1];
    const middle = d3.median(ends, (s) => (s[0] + s[1]) / 2);
    const reach = (far) => d3.max(far.filter((d) => d <= 5 * d3.quantile(far, 0.75))) ?? 0;
    const from = middle - reach(ends.map((s) => middle - s[0]));
    const to = middle + reach(ends.map((s) => s[1] - middle));
    const pad = padded(from, to, 0.05);
    return [from - pad, to + pad];
  }

  // Ticks of a logarithmic axis: 1, 2, 5, 10, …, or only the powers of ten where these are many.
  function steps(domain) {
    const [from, to] = domain.map(Math.log10);
    const powers = d3.range(Math.floor(from), Math.ceil(to) + 1);
    const within = (factors) => powers.flatMap((p) => factors.map((f) => f * 10 ** p)).filter((v) => !side(v, domain));
    const fine = within([1, 2, 5]);
    return fine.length < 3 ? d3.ticks(...domain, 4) : fine.length < 8 ? fine : within([1]);
  }

  // Marks that several charts share.

  function plot(label, options) {
    const style = { fontSize: "12px", background: "none", color: soft };
    const svg = Plot.plot({ className: "plot", ariaLabel: label, style, ...options });
    svg.setAttribute("role", "img");
    return svg;
  }

  const grid = (mark, ticks) => mark({ ticks, stroke: line, strokeOpacity: 1 });

  function tip(rows, options, pointer = Plot.pointer) {
    const style = { fill: paper, stroke: line, fontSize: 12, lineHeight: 1.35 };
    return Plot.tip(rows, pointer({ ...style, ...options }));
  }

  // Arrows at the edge for values beyond the axis.
  function beyond(rows, domain, y) {
    const text = (d) => (side(d.x, domain) < 0 ? "‹" : "›");
    const out = rows.filter((d) => side(d.x, domain));
    return Plot.text(out, { x: (d) => clamp(d.x, domain), y, text, fontSize: 17, fontWeight: 700, fill: soft });
  }

  // Leaderboard: one axis for all rows of a table, and a dot with a whisker in each.

  function scoreAxis(rows, width) {
    const scored = rows.filter((t) => known(t.score));
    const domain = comparable(scored.map((t) => [t.score, t.low, t.high]));
    const count = Math.max(2, Math.floor(width / 70));
    const scale = d3.scaleLinear(domain, [0, 1]);
    return {
      domain,
      ticks: scale.ticks(count),
      tickFormat: scale.tickFormat(count),
      first: trials.find((t) => t.place === 1 && known(t.low) && known(t.high)),
      beyond: scored.some((t) => side(t.score, domain)),
      frame: { width, marginLeft: 10, marginRight: 10, marginTop: 0 },
    };
  }

  function axis({ domain, ticks, tickFormat, frame }) {
    return plot("Axis", {
      ...frame,
      height: 20,
      marginBottom: 20,
      x: { domain },
      marks: [Plot.axisX(ticks, { tickFormat, tickSize: 0, tickPadding: 4, label: null })],
    });
  }

  function whisker(t, height, { domain, ticks, first, frame }) {
    const color = t.baseline ? soft : t.place === 1 || t.tied ? accent : ink;
    const inside = known(t.score) && !side(t.score, domain) ? [t] : [];
    const spanned = inside.filter(() => known(t.low) && known(t.high));
    const range = spanned.length ? `, interval ${number(t.low)} to ${number(t.high)}` : "";
    const from = (d) => clamp(d.low, domain);
    const to = (d) => clamp(d.high, domain);
    return plot(`${t.name}: ${number(t.score)}${range}`, {
      ...frame,
      height,
      marginBottom: 0,
      x: { domain, axis: null },
      y: { domain: [-1, 1], axis: null },
      marks: [
        Plot.ruleX(ticks, { stroke: line }),
        Plot.rect(first ? [first] : [], { x1: from, x2: to, y1: -1, y2: 1, fill: band }),
        Plot.ruleY(spanned, { x1: from, x2: to, y: 0, stroke: color, strokeWidth: 1.5 }),
        Plot.dot(inside, {
          x: "score",
          y: 0,
          r: 4.2,
          fill: t.baseline ? paper : color,
          stroke: color,
          strokeWidth: 1.5,
        }),
        beyond(known(t.score) ? [{ x: t.score }] : [], domain, 0),
      ],
    });
  }

  // Which settings mattered: a panel per setting, all on one axis of scores. Across a panel, places run from 0 to 1.

  const PANEL = { height: 132, marginTop: 10, marginRight: 4 };

  // Where values stand, and the ticks: words and few numbers as bands, many numbers on an axis.
  function settingAxis(p, width) {
    if (p.levels) {
      const n = p.levels.length;
      const place = (i) => (i + 0.5) / n;
      const longest = d3.max(p.levels, (text) => Math.min(12, text.length));
      const tilted = 6.5 * longest + 4 > width / n;
      const ticks = p.levels.map((text, i) => [place(i), shorten(text, 12)]);
      return { place, half: 0.36 / n, shake: 0.44 / n, ticks, room: tilted ? 3.9 * longest - 2 : 0, tilted };
    }
    const domain = d3.extent(p.values.filter(known));
    const place = (p.log ? d3.scaleLog : d3.scaleLinear)(domain, [0.04, 0.96]);
    const gap = (a, b) => (place(b) - place(a)) * width - 3.4 * (written(a).length + written(b).length);
    const fits = (values) => values.length > 1 && d3.pairs(values, gap).every((left) => left > 7);
    const choices = p.log ? logTicks(domain) : [5, 4, 3, 2].map((n) => place.ticks(n));
    const ticks = (choices.find(fits) ?? domain).map((v) => [place(v), written(v)]);
    const repeated = new Set(p.values).size < p.values.length / 2;
    return { place, half: 0.012, shake: repeated ? 8 / width : 0, ticks, room: 0 };
  }

  const written = (v) =>
    v && Math.abs(v) < 1e-3 ? Number(v.toPrecision(3)).toExponential().replaceAll("-", "−") : brief(v);

  function logTicks(domain) {
    const [from, to] = domain.map(Math.log10);
    const powers = d3.range(Math.floor(from), Math.ceil(to) + 1);
    const within = (factors, step) =>
      powers
        .filter((p) => p % step === 0)
        .flatMap((p) => factors.map((f) => f * 10 ** p))
        .filter((v) => !side(v, domain));
    return [within([1, 2, 5], 1), within([1, 3], 1), within([1], 1), within([1], 2), within([1], 3)];
  }

  // The dots of a panel. Equal values are shaken apart by the golden ratio, in the order of the trials.
  function settingDots(p, { place, shake }) {
    const seen = new Map();
    return study.mattered.trials
      .map(([number, name, score, deviation, first], i) => ({ number, name, score, deviation, first, v: p.values[i] }))
      .filter((t) => known(t.v))
      .map((trial) => {
        const k = seen.get(trial.v) ?? 0;
        seen.set(trial.v, k + 1);
        return { trial, x: place(trial.v) + (trial.first ? 0 : (((k * 0.618034 + 0.5) % 1) - 0.5) * shake) };
      });
  }

  // Scores beyond the axis, and trials without one, stand at its bad end.
  function scoreEdge({ domain, best, edge }) {
    const downward = edge < best;
    const outside = (score) => !known(score) || (downward ? score < edge : score > edge);
    const place = (score) => (outside(score) ? domain[downward ? 0 : 1] : score);
    const mark = (score) => (known(score) ? (downward ? "▾" : "▴") : "×");
    return { outside, place, mark };
  }

  function trialText(p, t) {
    const value = p.levels ? p.levels[t.v] : written(t.v);
    const spread = known(t.deviation) ? ` ± ${number(t.deviation)}` : "";
    const score = known(t.score) ? `${study.metric ?? "score"}  ${number(t.score)}${spread}` : "diverged";
    return `${t.number}  ${t.name}\n${shorten(spoken(p.name), 30)}  ${value}\n${score}`;
  }

  const spoken = (name) => name.replaceAll("_", " ");

  // Ticks of the scores, and the room that their labels need.
  function panelScores(domain) {
    const scale = d3.scaleLinear(domain, [0, 1]);
    const ticks = scale.ticks(4);
    const tickFormat = d3.max(domain, Math.abs) >= 1e4 ? brief : scale.tickFormat(4);
    return { ticks, tickFormat, room: 10 + 6.6 * (d3.max(ticks, (v) => tickFormat(v).length) ?? 0) };
  }

  function settingTicks({ ticks, tilted }) {
    if (ticks.length > 12) return null;
    const options = { tickSize: 0, tickPadding: 7, tickRotate: tilted ? -35 : 0, label: null };
    return Plot.axisX(
      ticks.map((t) => t[0]),
      { ...options, tickFormat: (_, i) => ticks[i][1] },
    );
  }

  function settingMarks(p, axis, dots) {
    const { domain, whiskers, trials } = study.mattered;
    const many = trials.length > 60;
    const inside = dots.filter((d) => !d.mark);
    const spanned = inside.filter((d) => whiskers && known(d.trial.deviation));
    const at = { x: "x", y: "y" };
    return [
      Plot.ruleX(spanned, {
        x: "x",
        y1: (d) => clamp(d.y - d.trial.deviation, domain),
        y2: (d) => clamp(d.y + d.trial.deviation, domain),
        stroke: ink,
        strokeOpacity: many ? 0.15 : 0.2,
      }),
      Plot.dot(inside, { ...at, r: many ? 2 : 2.8, fill: ink, fillOpacity: many ? 0.4 : 0.5 }),
      Plot.text(
        dots.filter((d) => d.mark),
        { ...at, text: "mark", fontSize: 13, fill: (d) => (d.mark === "×" ? warm : soft) },
      ),
      Plot.ruleY(p.groups, {
        x1: (g) => axis.place(g[0]) - axis.half,
        x2: (g) => axis.place(g[1]) + axis.half,
        y: (g) => g[2],
        stroke: p.beyond ? accent : soft,
        strokeWidth: 2.5,
      }),
      Plot.dot(
        inside.filter((d) => d.trial.first),
        { ...at, r: 4.5, fill: ink, stroke: warm, strokeWidth: 2 },
      ),
      Plot.dot(dots, { ...at, r: 6.5, stroke: accent, strokeWidth: 1.5, className: "rings" }),
      Plot.dot(dots, Plot.pointer({ ...at, stroke: "none" })), // only finds the dot; page.js shows its text
    ];
  }

  function setting(index, width) {
    const { domain, panels } = study.mattered;
    const p = panels[index];
    const { ticks, tickFormat, room } = panelScores(domain);
    const axis = settingAxis(p, width - room - PANEL.marginRight);
    const edge = scoreEdge(study.mattered);
    const dots = settingDots(p, axis).map(({ trial, x }) => ({
      trial,
      x,
      y: edge.place(trial.score),
      mark: edge.outside(trial.score) ? edge.mark(trial.score) : null,
      text: trialText(p, trial),
    }));
    const svg = plot(`Scores of ${dots.length} trials by ${spoken(p.name)}`, {
      ...PANEL,
      width,
      marginLeft: room,
      height: PANEL.height + 24 + axis.room,
      marginBottom: 24 + axis.room,
      x: { domain: [0, 1], axis: null },
      y: { domain, axis: null },
      marks: [
        grid(Plot.gridY, ticks),
        Plot.axisY({ ticks, tickFormat, tickSize: 0, label: null }),
        settingTicks(axis),
        ...settingMarks(p, axis, dots),
      ],
    });
    for (const ring of svg.querySelectorAll(".rings circle"))
      ring.dataset.ring = dots[d3.select(ring).datum()].trial.number;
    return svg;
  }

  // Folds: a strip of dots per trial.

  function folds(width) {
    const shown = trials.filter((t) => t.folds?.some((f) => known(f[1])));
    const many = d3.max(shown, (t) => t.folds.length) > 30;
    const narrow = width < 620;
    const domain = comparable(shown.map((t) => [t.score, ...spread(t.folds.map((f) => f[1]).filter(known))]));
    // A fixed scatter across the row keeps hundreds of folds apart; the golden ratio spreads neighbors evenly.
    const shake = (f) => (many ? (((f * 0.618034) % 1) - 0.5) * 0.56 : 0);
    const dots = shown
      .flatMap((t, row) => t.folds.map(([f, x]) => ({ t, f, x, y: row + shake(f) })))
      .filter((d) => known(d.x));
    const inside = dots.filter((d) => !side(d.x, domain));
    const means = shown.map((t, row) => ({ x: t.score, row })).filter((d) => known(d.x) && !side(d.x, domain));
    const tall = narrow ? 0.18 : 0.34;
    const margin = Math.min(250, 24 + 6.4 * d3.max(shown, (t) => placed(t).length));
    const svg = plot(`Scores of ${shown.length} trials on each fold`, {
      width,
      height: shown.length * (narrow ? 46 : many ? 32 : 26) + 34,
      marginTop: 24,
      marginBottom: 10,
      marginLeft: narrow ? 6 : margin,
      marginRight: 12,
      x: { domain, axis: null },
      y: { domain: [-0.5, shown.length - 0.5], reverse: true, axis: null },
      marks: [
        Plot.axisX({ anchor: "top", ticks: narrow ? 4 : 8, tickSize: 0, label: null }),
        grid(Plot.gridX, narrow ? 4 : 8),
        narrow ? namesAbove(shown, width) : namesBeside(shown, margin),
        many
          ? null
          : Plot.line(inside, { x: "x", y: "y", z: "f", stroke: accent, strokeWidth: 1.5, className: "paths" }),
        Plot.dot(inside, { x: "x", y: "y", r: many ? 1.8 : 3.4, fill: ink, fillOpacity: many ? 0.28 : 0.42 }),
        beyond(dots, domain, "y"),
        Plot.ruleX(means, {
          x: "x",
          y1: (d) => d.row - tall,
          y2: (d) => d.row + tall,
          stroke: accent,
          strokeWidth: 2.5,
        }),
        tip(inside, { x: "x", y: "y", title: (d) => `${foldName(d.f)}   ${number(d.x)}\n${d.t.name}` }),
      ],
    });
    followFold(svg, inside);
    return svg;
  }

  const foldName = (f) => study.foldNames?.[f] ?? `fold ${f + 1}`;

  // Of a few scores all; of hundreds the lower 98 %, because the worst single row says little about a trial.
  const spread = (scores) => (scores.length > 30 ? [d3.min(scores), d3.quantile(scores, 0.98)] : d3.extent(scores));

  function namesAbove(shown, width) {
    const text = (t) => shorten(placed(t), width / 6.6);
    return Plot.text(shown, {
      y: (_, i) => i - 0.34,
      frameAnchor: "left",
      text,
      fill: ink,
      stroke: paper,
      strokeWidth: 5,
    });
  }

  function namesBeside(shown, margin) {
    const text = (t) => shorten(placed(t), margin / 6.2);
    const fill = (t) => (t.baseline ? soft : ink);
    return Plot.text(shown, { y: (_, i) => i, frameAnchor: "left", textAnchor: "start", dx: -margin, text, fill });
  }

  // The line that joins one fold's dots through the trials shows while one of them is pointed at.
  function followFold(svg, dots) {
    const paths = [...svg.querySelectorAll(".paths path")];
    const follow = () =>
      paths.forEach((path) => {
        const [first] = d3.select(path).datum();
        path.style.display = svg.value && dots[first].f === svg.value.f ? "" : "none";
      });
    svg.addEventListener("input", follow);
    follow();
  }

  // Learning curves.

  const parts = (t) => ["train", "validation"].map((name) => t.curve[name]).filter(Boolean);
  const medians = (t) =>
    parts(t)
      .flatMap((part) => part.median ?? [])
      .filter(known);
  const lowest = (t) =>
    d3.min([
      ...medians(t),
      ...parts(t)
        .flatMap((part) => part.low ?? [])
        .filter(known),
    ]);

  // What a curve reaches after the first quarter of its epochs: the first ones would flatten all the rest.
  function highest(t) {
    const late = (values = []) => (values ?? []).slice(Math.floor((values ?? []).length / 4)).filter(known);
    return d3.max(
      parts(t)
        .flatMap((part) => [...late(part.median), d3.quantile(late(part.high), 0.9)])
        .filter(known),
    );
  }

  // The vertical axis for these trials: linear and cut at the top, or logarithmic where even the rest spans decades.
  function lossAxis(shown) {
    const from = d3.min(shown, lowest);
    const tops = shown.map(highest).filter(known);
    if (!known(from) || !tops.length) return { domain: [0, 1], ticks: [] };
    const to = Math.min(d3.max(tops), from + 2.5 * (d3.median(tops) - from) || Infinity);
    if (from > 0 && to / from > 25) {
      const domain = [from / 1.1, d3.max(shown.flatMap(medians)) * 1.1];
      return { type: "log", domain, ticks: steps(domain), tickFormat: brief };
    }
    const pad = padded(from, to, 0.06);
    return { domain: [from - pad, to + pad], ticks: 5, tickFormat: d3.scaleLinear([from, to], [0, 1]).tickFormat(5) };
  }

  function epochs(t) {
    const [first, last] = d3.extent(t.curve.epoch);
    return first === last ? [first - 1, last + 1] : [first, last];
  }

  function curveRows(t, name) {
    const { median, low, high } = t.curve[name] ?? {};
    return t.curve.epoch.map((epoch, i) => ({ epoch, median: median?.[i], low: low?.[i], high: high?.[i] }));
  }

  function curveMarks(t, name, color, strokeWidth, strokeDasharray) {
    const rows = curveRows(t, name);
    const banded = rows.filter((d) => known(d.low) && known(d.high));
    return [
      Plot.areaY(banded, { x: "epoch", y1: "low", y2: "high", fill: color, fillOpacity: 0.14, clip: true }),
      rows.length > 1
        ? Plot.lineY(rows, { x: "epoch", y: "median", stroke: color, strokeWidth, strokeDasharray, clip: true })
        : Plot.dot(rows, { x: "epoch", y: "median", r: 3, fill: color }),
    ];
  }

  const chosenEpoch = (t) => curveRows(t, "validation").filter((d) => d.epoch === t.epoch && known(d.median));

  function curve(t, width) {
    const y = lossAxis([t]);
    const x = epochs(t);
    const ticks = d3.ticks(...x, Math.min(x[1] - x[0], width / 90)).filter(Number.isInteger);
    const train = curveRows(t, "train");
    const rows = curveRows(t, "validation").map((d, i) => ({ ...d, train: train[i].median }));
    const title = (d) => `epoch ${d.epoch}\nvalidation  ${brief(d.median)}\ntraining  ${brief(d.train)}`;
    const height = (d) => clamp(d.median ?? d.train ?? y.domain[0], y.domain);
    const chosen = chosenEpoch(t);
    const textAnchor = t.epoch > (x[0] + x[1]) / 2 ? "end" : "start";
    return plot(
      `Learning curve of ${t.name}: ${study.curveLabel ?? "loss"} by epoch, epoch chosen ${t.epoch ?? "unknown"}`,
      {
        width,
        height: width < 620 ? 240 : 320,
        marginLeft: 52,
        marginRight: 12,
        marginTop: 22,
        marginBottom: 34,
        x: { domain: x, axis: null },
        y: { ...y, label: null, tickSize: 0 },
        marks: [
          grid(Plot.gridY, y.ticks),
          Plot.axisX({ ticks, tickFormat: "d", tickSize: 0, label: "epoch", labelArrow: "none" }),
          ...curveMarks(t, "train", warm, 2, "6 4"),
          ...curveMarks(t, "validation", accent, 2),
          Plot.ruleX(chosen, { x: "epoch", stroke: soft, strokeDasharray: "2 3" }),
          Plot.dot(chosen, { x: "epoch", y: "median", r: 5, fill: accent, stroke: paper, strokeWidth: 2 }),
          Plot.text(chosen, {
            x: "epoch",
            frameAnchor: "top",
            dy: -14,
            textAnchor,
            text: (d) => `epoch ${d.epoch} chosen`,
            fill: ink,
          }),
          Plot.ruleX(rows, Plot.pointerX({ x: "epoch", stroke: soft })),
          tip(rows, { x: "epoch", y: height, title }, Plot.pointerX),
        ],
      },
    );
  }

  function thumb(t, y) {
    return plot(`Learning curve of ${t.name}`, {
      width: 150,
      height: 76,
      margin: 3,
      x: { domain: epochs(t), axis: null },
      y: { ...y, axis: null },
      marks: [
        Plot.frame({ stroke: line, anchor: "bottom" }),
        ...curveMarks(t, "train", warm, 1.4, "3 2"),
        ...curveMarks(t, "validation", accent, 1.4),
        Plot.dot(chosenEpoch(t), { x: "epoch", y: "median", r: 3, fill: accent, stroke: paper }),
      ],
    });
  }

  // Predicted against true. A point is [row, true, predicted].

  // Both axes carry the same domain: that of the truth, a little wider; wild predictions are drawn on its edge.
  function valueAxis() {
    const [from, to] = d3.extent(outcome.points, (p) => p[1]);
    if (outcome.log) {
      const domain = from < to ? [from * 0.9, to * 1.1] : [from / 2, to * 2];
      return { type: "log", domain, ticks: steps(domain), tickFormat: "~s" };
    }
    const pad = padded(from, to, 0.06);
    const domain = [from - pad, to + pad];
    return { domain, ticks: 5, tickFormat: Math.max(...domain.map(Math.abs)) >= 1e4 ? "~s" : undefined };
  }

  const labeled = (label, options) => ({ ...options, label, labelArrow: "none", tickSize: 0 });

  function square(width) {
    const size = Math.min(width, 500);
    return { width: size, height: size, marginLeft: 48, marginBottom: 36, marginTop: 24, marginRight: 14 };
  }

  function scatter(width) {
    const { points } = outcome;
    if (!points.length) return null;
    const scale = valueAxis();
    const [from, to] = scale.domain;
    const y = (p) => clamp(p[2], scale.domain);
    const dense = points.length > 500;
    const title = (p) => `row ${p[0]}\ntrue  ${brief(p[1])}\npredicted  ${brief(p[2])}`;
    return plot(`Predicted against true values of ${points.length} rows`, {
      ...square(width),
      x: labeled("true", scale),
      y: labeled("predicted", scale),
      marks: [
        grid(Plot.gridX, scale.ticks),
        grid(Plot.gridY, scale.ticks),
        Plot.link([0], { x1: from, y1: from, x2: to, y2: to, stroke: soft }),
        Plot.dot(points, { x: "1", y, r: dense ? 2 : 2.8, fill: accent, fillOpacity: dense ? 0.35 : 0.55 }),
        tip(points, { x: "1", y, title }),
      ],
    });
  }

  function scatterNote() {
    const { points, rows, log } = outcome;
    const out = points.filter((p) => side(p[2], valueAxis().domain)).length;
    const notes = [
      points.length < rows && `${number(points.length, 0)} of ${number(rows, 0)} rows are drawn, chosen at random.`,
      out && `${out} ${out === 1 ? "prediction lies" : "predictions lie"} beyond the truth's range, drawn on the edge.`,
      log && "Axes are logarithmic, as the score is, and errors are ratios.",
    ];
    return notes.filter(Boolean).join(" ");
  }

  function errorGroups() {
    const error = outcome.log ? (p) => p[2] / p[1] : (p) => p[2] - p[1];
    const sorted = d3.sort(outcome.points, (p) => p[2]);
    const count = Math.min(10, Math.floor(sorted.length / 10));
    const cut = (g) => Math.floor((g * sorted.length) / count);
    return d3.range(count).map((g) => {
      const rows = sorted.slice(cut(g), cut(g + 1));
      const quantile = (q) => d3.quantile(rows, q, error);
      return { x: d3.median(rows, (p) => p[2]), low: quantile(0.1), middle: quantile(0.5), high: quantile(0.9) };
    });
  }

  function errors(width) {
    const groups = errorGroups();
    if (groups.length < 2) return null;
    const none = outcome.log ? 1 : 0;
    const scale = valueAxis();
    const inside = groups.map((g) => ({ ...g, x: clamp(g.x, scale.domain) }));
    const tickFormat = (v) => (outcome.log ? `×${brief(v)}` : brief(v));
    const title = (g) =>
      `median error  ${tickFormat(g.middle)}\nmiddle 80 %  ${tickFormat(g.low)} to ${tickFormat(g.high)}`;
    const domain = d3.extent([none, ...groups.flatMap((g) => [g.low, g.high])]);
    return plot(`Error by prediction, in ${groups.length} groups of rows`, {
      ...square(width),
      x: labeled("predicted", scale),
      y: labeled(outcome.log ? "predicted ÷ true" : "predicted − true", { domain, nice: true, ticks: 5, tickFormat }),
      marks: [
        grid(Plot.gridY, 5),
        Plot.ruleY([none], { stroke: soft }),
        Plot.ruleX(inside, { x: "x", y1: "low", y2: "high", stroke: accent, strokeWidth: 1.5 }),
        Plot.dot(inside, { x: "x", y: "middle", r: 4.2, fill: accent }),
        tip(inside, { x: "x", y: "middle", title }),
      ],
    });
  }

  // Answers to questions: series of points, each with its interval, joined by a line or not.

  function answer(index, width) {
    const { x, y, log_x: log, rules, series } = study.answers[index];
    const colors = [accent, warm, ink, soft];
    const point = ([x, y, low, high]) => ({ x, y, low, high });
    const drawn = series
      .map((s, i) => ({ ...s, color: colors[i % colors.length], points: s.points.map(point) }))
      .map((s) => ({ ...s, points: s.points.filter((p) => known(p.x) && known(p.y) && (!log || p.x > 0)) }))
      .filter((s) => s.points.length);
    if (!drawn.length) return null;
    const named = drawn.flatMap((s) => s.points.map((p) => ({ ...p, name: s.name })));
    const title = (p) =>
      `${p.name}\n${x}  ${brief(p.x)}\n${y}  ${brief(p.y)}` +
      (known(p.low) && known(p.high) ? ` (${brief(p.low)} to ${brief(p.high)})` : "");
    const span = d3.extent(named, (p) => p.x);
    const inside = (r) => (r.vertical ? !side(r.at, span) : known(r.at));
    const level = rules.filter((r) => !r.vertical && inside(r)).map((r) => r.at);
    const [tickFormat, room] = apart(d3.extent([...named.flatMap((p) => [p.y, p.low, p.high]), ...level].filter(known)));
    return plot(`${y} by ${x}`, {
      width,
      height: 260 + 16 * drawn.length,
      marginLeft: Math.max(54, room),
      marginRight: 14,
      marginTop: 22 + 16 * drawn.length,
      marginBottom: 38,
      x: labeled(x, { type: log ? "log" : "linear", ticks: log ? steps(span) : 6, tickFormat: brief, nice: !log }),
      y: labeled(y, { ticks: 5, tickFormat, nice: true }),
      marks: [
        grid(Plot.gridY, 5),
        Plot.ruleY(rules.filter((r) => !r.vertical && inside(r)), { y: "at", stroke: soft, strokeDasharray: "3 3" }),
        Plot.ruleX(rules.filter((r) => r.vertical && inside(r)), { x: "at", stroke: soft, strokeDasharray: "3 3" }),
        ...drawn.flatMap((s, i) => seriesMarks(s, i)),
        Plot.text(rules.filter((r) => !r.vertical && inside(r)), { ...RULE, y: "at", frameAnchor: "right", dy: -7 }),
        ...rules
          .filter((r) => r.vertical && inside(r))
          .map((r, i) => Plot.text([r], { ...RULE, x: "at", frameAnchor: "bottom", dx: -4, dy: -8 - 15 * i })),
        tip(named, { x: "x", y: "y", title }),
      ],
    });
  }

  // How ticks are written, and the room that they take: briefly, but with as many digits as tell them apart.
  function apart(extent) {
    const scale = d3.scaleLinear(extent, [0, 1]).nice();
    const ticks = scale.ticks(5);
    const format = new Set(ticks.map(brief)).size === ticks.length ? brief : scale.tickFormat(5);
    return [format, 10 + 6.6 * (d3.max(ticks, (v) => format(v).length) ?? 0)];
  }

  const RULE = { text: (r) => r.name, textAnchor: "end", fill: soft, stroke: paper, strokeWidth: 4 };

  function seriesMarks({ name, line: joined, color, points }, row) {
    const spanned = points.filter((p) => known(p.low) && known(p.high));
    const many = points.length > 60;
    return [
      Plot.ruleX(spanned, { x: "x", y1: "low", y2: "high", stroke: color, strokeOpacity: many ? 0.25 : 0.6 }),
      joined ? Plot.line(points, { x: "x", y: "y", stroke: color, strokeWidth: 1.8 }) : null,
      joined && points.length > 25 ? null : Plot.dot(points, { x: "x", y: "y", r: many || joined ? 2.2 : 3.6, fill: color }),
      Plot.text([name], { frameAnchor: "top-left", textAnchor: "start", dx: 6, dy: -16 * (row + 1), fill: color, text: (d) => `● ${d}` }),
    ];
  }

  // Confusion matrix: classes are numbers here, because two may carry the same name.

  function matrixSize(width) {
    const n = outcome.classes.length;
    const longest = Math.min(
      16,
      d3.max(outcome.classes, (c) => c.length),
    );
    const digits = String(d3.max(outcome.confusion.flat())).length;
    const tilted = longest > 3 && n > 4;
    const left = Math.max(36, 18 + 7 * longest);
    const right = 52;
    const top = 28 + (tilted ? 5.6 * longest : 12);
    const least = n > 60 ? 9 : Math.max(19, 6.2 * digits + 3); // below 9 pixels per digit no count could be read
    const cell = Math.min(76, Math.max(least, (Math.min(width, 720) - left - right) / n));
    const frame = { marginLeft: left, marginRight: right, marginTop: top, marginBottom: 6 };
    return {
      frame: { ...frame, width: left + right + cell * n, height: top + cell * n + 6 },
      tickRotate: tilted ? -50 : 0,
      names: Math.min(12, cell),
      counts: n > 60 ? null : Math.max(9, Math.min(14, cell / (digits * 0.72 + 0.6))),
    };
  }

  function confusion(width) {
    const { classes, confusion: table } = outcome;
    const n = classes.length;
    const sums = table.map((row) => d3.sum(row));
    const right = d3.sum(table, (row, i) => row[i]);
    const cells = table.flatMap((row, i) => row.map((count, j) => ({ i, j, count, share: count / (sums[i] || 1) })));
    const filled = cells.filter((c) => c.count);
    const { frame, tickRotate, names, counts } = matrixSize(width);
    const inCell = (share) => percent(share, n > 30 ? 0 : 1);
    const opacity = (c) => 0.07 + 0.88 * Math.sqrt(c.share); // the root lets rare mistakes be seen
    const name = { tickSize: 0, tickFormat: (i) => shorten(classes[i], 16), label: null, fill: ink, fontSize: names };
    const head = { frameAnchor: "top-left", dx: -8, dy: -14, textAnchor: "end", fill: soft };
    const title = (c) =>
      `true  ${classes[c.i]}\npredicted  ${classes[c.j]}\n${number(c.count, 0)} rows, ${percent(c.share, 1)}`;
    return plot(`Confusion matrix of ${n} classes: ${number(right, 0)} of ${number(d3.sum(sums), 0)} rows right`, {
      ...frame,
      x: { domain: d3.range(n), axis: null, padding: 0.04 },
      y: { domain: d3.range(n), axis: null, padding: 0.04 },
      marks: [
        Plot.cell(cells, { x: "j", y: "i", fill: "var(--raised)" }),
        Plot.cell(filled, { x: "j", y: "i", fill: (c) => (c.i === c.j ? accent : warm), fillOpacity: opacity }),
        counts &&
          Plot.text(filled, {
            x: "j",
            y: "i",
            text: (c) => number(c.count, 0),
            fontSize: counts,
            fill: (c) => (opacity(c) > 0.6 ? paper : ink),
          }),
        Plot.axisY(name),
        Plot.axisX({ ...name, anchor: "top", tickRotate }),
        Plot.text(["true"], head),
        Plot.text(["predicted"], { ...head, dx: 2, dy: 8 - frame.marginTop, textAnchor: "start" }),
        Plot.text(["right"], { ...head, frameAnchor: "top-right", dx: 8, textAnchor: "start" }),
        Plot.text(table, {
          y: (_, i) => i,
          frameAnchor: "right",
          dx: 8,
          textAnchor: "start",
          text: (row, i) => (sums[i] ? inCell(row[i] / sums[i]) : "–"),
          fill: soft,
          fontSize: names,
        }),
        tip(cells, { x: "j", y: "i", title }),
      ],
    });
  }

  // How far to believe it: four small pictures, each with one sentence above.

  const BELIEF = { height: 158, marginTop: 14, marginBottom: 40 };

  // The winner as it looks and as it is, on the axis of its score.
  function luck(width) {
    const { raw, value, low, high, constant } = study.belief.luck;
    const rows = [
      { name: "as it looks", v: raw, color: soft },
      { name: "corrected", v: value, color: accent },
      { name: "constant", v: constant, color: soft },
    ].filter((d) => known(d.v));
    const domain = comparable([[raw, value, low, high], ...(known(constant) ? [[constant]] : [])]);
    return plot(`Score as it looks ${number(raw)}, corrected ${number(value)}, from ${number(low)} to ${number(high)}`, {
      ...BELIEF,
      width,
      marginLeft: 84,
      marginRight: 16,
      x: { domain, label: study.metric, ticks: Math.max(2, Math.floor(width / 110)), tickSize: 0 },
      y: { domain: rows.map((d) => d.name), label: null, tickSize: 0 },
      marks: [
        grid(Plot.gridX, Math.max(2, Math.floor(width / 110))),
        Plot.ruleY(known(low) ? [rows[1]] : [], { x1: low, x2: high, y: "name", stroke: accent, strokeWidth: 2 }),
        Plot.dot(rows, { x: (d) => clamp(d.v, domain), y: "name", r: 4.5, fill: "color", stroke: "color" }),
        Plot.text(rows, { x: (d) => clamp(d.v, domain), y: "name", text: (d) => number(d.v), dy: -12, fill: ink }),
      ],
      color: { type: "identity" },
    });
  }

  // The parts of the variance, the largest marked.
  function variance(width) {
    const parts = study.belief.variance.parts;
    const most = d3.max(parts, (d) => d[1]);
    const longest = d3.max(parts, (d) => d[0].length);
    return plot(parts.map(([name, share]) => `${name} ${percent(share)}`).join(", "), {
      ...BELIEF,
      width,
      marginBottom: 10,
      marginLeft: 7 * longest + 10,
      marginRight: 44,
      x: { domain: [0, most || 1], axis: null },
      y: { domain: parts.map((d) => d[0]), label: null, tickSize: 0, padding: 0.45 },
      marks: [
        Plot.barX(parts, { x: (d) => d[1], y: (d) => d[0], fill: (d) => (d[1] === most ? accent : soft), rx: 2 }),
        Plot.text(parts, {
          x: (d) => d[1],
          y: (d) => d[0],
          text: (d) => percent(d[1]),
          dx: 6,
          textAnchor: "start",
          fill: ink,
        }),
      ],
      color: { type: "identity" },
    });
  }

  // Reliability: what was said against what was true. On the line, both agree.
  function calibration(width) {
    const { before, after, corrected } = study.belief.calibration;
    const now = corrected ? after : before;
    const at = { x: (d) => d[0], y: (d) => d[1] };
    return plot("Share that was true against the probability that was said", {
      ...BELIEF,
      height: 200,
      marginTop: 24,
      width,
      marginLeft: 42,
      marginRight: 12,
      x: { domain: [0, 1], label: "said", tickFormat: (v) => percent(v), ticks: 4, tickSize: 0 },
      y: { domain: [0, 1], label: "true", tickFormat: (v) => percent(v), ticks: 4, tickSize: 0 },
      marks: [
        grid(Plot.gridY, 4),
        Plot.line(
          [
            [0, 0],
            [1, 1],
          ],
          { stroke: soft, strokeDasharray: "2 3" },
        ),
        corrected ? Plot.line(before, { ...at, stroke: warm, strokeDasharray: "4 3" }) : null,
        Plot.ruleX(now, { x: at.x, y1: (d) => d[2], y2: (d) => d[3], stroke: accent, strokeOpacity: 0.45 }),
        Plot.line(now, { ...at, stroke: accent }),
        Plot.dot(now, { ...at, r: 3, fill: accent }),
        corrected ? Plot.text(["corrected"], { frameAnchor: "bottom-right", dx: -4, dy: -4, fill: accent }) : null,
        corrected ? Plot.text(["before"], { frameAnchor: "bottom-right", dx: -4, dy: -19, fill: warm }) : null,
      ],
      color: { type: "identity" },
    });
  }

  // Rows by the number of classes in their set, or by their distance from the prediction.
  function sureness(width) {
    const { kind, counts, reach } = study.belief.sureness;
    const frame = { ...BELIEF, width, marginLeft: 12, marginRight: 12, y: { axis: null } };
    const rows = d3.sum(counts);
    if (kind === "sets") {
      const last = Math.max(2, d3.max(counts, (n, i) => (n ? i + 1 : 0)));
      const bars = counts.slice(0, last).map((n, i) => ({ size: i + 1, n }));
      const text = (d) => (d.n ? percent(d.n / rows) : "");
      return plot(bars.map((d) => `${d.size} classes: ${d.n} rows`).join(", "), {
        ...frame,
        x: { domain: bars.map((d) => d.size), label: "classes in the set", tickSize: 0, padding: 0.3 },
        marks: [
          Plot.barY(bars, { x: "size", y: "n", fill: (d) => (d.size === 1 ? accent : soft), rx: 2 }),
          Plot.text(bars, { x: "size", y: "n", text, dy: -8, fill: ink }),
        ],
        color: { type: "identity" },
      });
    }
    const step = (2 * reach) / counts.length;
    const bars = counts.map((n, i) => ({ from: i * step, to: (i + 1) * step, n }));
    return plot(`Distances between prediction and truth; 90 % are below ${brief(reach)}`, {
      ...frame,
      x: { label: "distance from the prediction", tickFormat: brief, ticks: 4, tickSize: 0 },
      marks: [
        Plot.rectY(bars, { x1: "from", x2: "to", y: "n", fill: (d) => (d.from < reach - step / 2 ? accent : soft), inset: 0.5 }),
        Plot.ruleX([reach], { stroke: ink, strokeDasharray: "3 2" }),
        Plot.text([reach], { x: (d) => d, frameAnchor: "top", text: () => "90 %", dx: 5, textAnchor: "start", fill: ink }),
      ],
      color: { type: "identity" },
    });
  }

  // Inside the network: layers over time, colored by their depth. Epochs stand at the root of their number, because
  // most happens in the first ones.

  const depth = (at) => `color-mix(in oklab, ${accent} ${Math.round(100 * at)}%, ${warm})`;

  function symptom(index, width) {
    const { epochs, steps: taken, panels } = study.inside;
    const p = panels[index];
    const rows = p.lines.flatMap((own) =>
      own.values.map((v, i) => ({ name: own.name, at: own.at, epoch: epochs[i], step: taken?.[i], v, i })),
    );
    const numbers = rows.map((d) => d.v).filter((v) => known(v) && (!p.log || v > 0));
    const y = symptomAxis(p, numbers);
    const drawn = rows.filter((d) => known(d.v)).map((d) => ({ ...d, y: clamp(d.v, y.domain) }));
    const last = d3.max(epochs);
    const ticks = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000].filter((e) => e < 0.75 * last);
    const sparse = ticks.filter((e, i) => i === 0 || e >= 0.04 * last);
    const title = (d) => `${d.name}\nepoch ${d.epoch}, step ${d.step ?? "–"}\n${share(p, d.v)}`;
    return plot(`${p.name} by epoch, of ${p.lines.length} layers`, {
      width,
      height: 128,
      marginLeft: 44,
      marginRight: 8,
      marginTop: 8,
      marginBottom: 26,
      x: { type: "sqrt", domain: [0, last || 1], axis: null },
      y: { ...y, label: null, tickSize: 0 },
      marks: [
        grid(Plot.gridY, y.ticks),
        Plot.axisX([...sparse, last], { tickSize: 0, label: null, tickFormat: (e) => `${e}` }),
        ...clippedBars(p, epochs, y),
        Plot.line(drawn, { x: "epoch", y: "y", z: "name", stroke: (d) => depth(d.at), strokeWidth: 1.6 }),
        Plot.dot(drawn, { x: "epoch", y: "y", r: 1.7, fill: (d) => depth(d.at) }),
        tip(drawn, { x: "epoch", y: "y", title }),
      ],
      color: { type: "identity" },
    });
  }

  const share = (p, v) => (p.share ? percent(v) : power(v));

  // Numbers of any size in little room: those that are very large or small by their powers of ten.
  function power(v) {
    if (!v || (Math.abs(v) >= 1e-3 && Math.abs(v) < 1e3)) return brief(v);
    return Number(v.toPrecision(2)).toExponential().replace("e+", "e").replaceAll("-", "−");
  }

  function symptomAxis(p, numbers) {
    const [least, most] = d3.extent(numbers);
    if (p.share) return { domain: [0, 1], ticks: [0, 0.5, 1], tickFormat: (v) => percent(v) };
    if (!known(least)) return { domain: [0, 1], ticks: [0, 1] };
    if (p.log) {
      const domain = [least / 1.4, most * 1.4];
      const powers = d3.range(Math.ceil(Math.log10(domain[0])), Math.floor(Math.log10(domain[1])) + 1);
      const every = Math.ceil(powers.length / 4);
      const ticks = powers.filter((e) => e % every === 0).map((e) => 10 ** e);
      return { type: "log", domain, ticks, tickFormat: power };
    }
    const from = least >= 0 ? 0 : least - padded(least, most, 0.06);
    const domain = [from, most + padded(from, most, 0.06)];
    return { domain, ticks: d3.ticks(...domain, 3), tickFormat: power };
  }

  // A bar from the bottom for each look: as tall as the share of steps that were clipped since the look before.
  function clippedBars(p, epochs, { type, domain }) {
    const height = type === "log" ? d3.interpolateNumber(...domain.map(Math.log10)) : d3.interpolateNumber(...domain);
    const top = (c) => (type === "log" ? 10 ** height(c) : height(c));
    const bars = (p.clipped ?? []).map((c, i) => ({ epoch: epochs[i], c })).filter((d) => known(d.c) && d.c > 0);
    return [Plot.ruleX(bars, { x: "epoch", y1: domain[0], y2: (d) => top(d.c), stroke: warm, strokeWidth: 6, strokeOpacity: 0.3 })];
  }

  // What a linear classifier has learnt.

  // Weights as images, all on one scale: a square for each pixel, as strong as its weight is large.
  function templates(width) {
    const { images, scored } = study.linear;
    const side = Math.round(Math.sqrt(images[0].length));
    const across = Math.min(images.length, width < 420 ? 3 : 5);
    const most = d3.quantile(images.flat().filter(known).map(Math.abs), 0.99) || 1;
    const gap = 0.14 * side;
    const pixels = images.flatMap((image, k) =>
      image.map((v, i) => ({
        x: (k % across) * (side + gap) + (i % side),
        y: Math.floor(k / across) * (side + 0.3 * side) + Math.floor(i / side),
        v,
      })),
    );
    const names = scored.map((name, k) => ({
      name,
      x: (k % across) * (side + gap) + side / 2,
      y: Math.floor(k / across) * 1.3 * side,
    }));
    const unit = Math.min(width / (across * (side + gap) - gap), 120 / side);
    const rows = Math.ceil(images.length / across);
    const size = { width: unit * (across * (side + gap) - gap), height: unit * rows * 1.3 * side };
    return plot(`Weights of ${images.length} classes as images of ${side} by ${side} pixels`, {
      ...size,
      margin: 0,
      marginTop: 0.24 * side * unit,
      height: size.height + 2,
      x: { domain: [0, across * (side + gap) - gap], axis: null },
      y: { domain: [(rows - 1) * 1.3 * side + side, 0], axis: null },
      color: { type: "identity" },
      marks: [
        Plot.rect(pixels, {
          x1: "x",
          x2: (d) => d.x + 1,
          y1: "y",
          y2: (d) => d.y + 1,
          fill: (d) => (!known(d.v) ? "var(--raised)" : d.v > 0 ? accent : warm),
          fillOpacity: (d) => (known(d.v) ? Math.min(1, Math.abs(d.v) / most) : 1),
        }),
        Plot.text(names, { x: "x", y: "y", dy: -9, text: (d) => shorten(d.name, 12), fill: ink }),
        tip(pixels, { x: (d) => d.x + 0.5, y: (d) => d.y + 0.5, title: (d) => (known(d.v) ? brief(d.v) : "constant") }),
      ],
    });
  }

  const CLASS_COLORS = d3.schemeTableau10;

  // The lines w·x + b = 0 in the plane of two features, the others at their mean, which the bias already holds.
  function planes([i, j], width) {
    const { names, weights, bias, points, labels, classes, scored } = study.linear;
    const size = Math.min(width, 560);
    const color = (k) => (classes.length === 2 ? [warm, accent][k] : CLASS_COLORS[k % 10]);
    const rows = points.map((p, n) => ({ x: p[i], y: p[j], k: labels[n] }));
    const reach = (key) => {
      const [from, to] = d3.extent(rows, (d) => d[key]);
      const pad = padded(from, to, 0.08);
      return [from - pad, to + pad];
    };
    const [dx, dy] = [reach("x"), reach("y")];
    const middle = names.map((_, f) => d3.mean(points, (p) => p[f]));
    const lines = weights
      .map((w, k) => {
        const rest = d3.sum(w, (v, f) => (f === i || f === j ? 0 : v * middle[f])) + bias[k];
        return { k: scored.length === 1 ? 1 : k, ends: lineWithin(w[i], w[j], rest, dx, dy) };
      })
      .filter((l) => l.ends);
    const title = (d) => `${classes[d.k]}\n${names[i]}  ${brief(d.x)}\n${names[j]}  ${brief(d.y)}`;
    return plot(`Rows of ${classes.length} classes by ${names[i]} and ${names[j]}, and where scores are 0`, {
      width: size,
      height: size * 0.72,
      marginLeft: 62,
      marginBottom: 36,
      marginTop: 44,
      marginRight: 12,
      x: labeled(shorten(names[i], 40), { domain: dx, ticks: 5, tickFormat: brief, labelAnchor: "center" }),
      y: labeled(shorten(names[j], 30), { domain: dy, ticks: 5, tickFormat: brief, labelAnchor: "center" }),
      color: { type: "identity" },
      marks: [
        grid(Plot.gridX, 5),
        grid(Plot.gridY, 5),
        Plot.dot(rows, { x: "x", y: "y", r: 2.8, fill: (d) => color(d.k), fillOpacity: 0.6 }),
        Plot.link(lines, {
          x1: (l) => l.ends[0][0],
          y1: (l) => l.ends[0][1],
          x2: (l) => l.ends[1][0],
          y2: (l) => l.ends[1][1],
          stroke: (l) => (scored.length === 1 ? ink : color(l.k)),
          strokeWidth: 1.8,
        }),
        ...classKey(classes, size - 60, color),
        tip(rows, { x: "x", y: "y", title }),
      ],
    });
  }

  // The names of classes in their colors, above a plot, in up to two rows.
  function classKey(classes, width, color) {
    let [left, row] = [0, 0];
    return classes.flatMap((name, k) => {
      const text = `● ${shorten(name, 14)}`;
      const room = 7.2 * text.length + 8;
      if (left + room > width && row === 0) [left, row] = [0, 1];
      const mark = Plot.text([text], { frameAnchor: "top-left", textAnchor: "start", dx: left, dy: 16 * row - 36, fill: color(k) });
      left += room;
      return [mark];
    });
  }

  // Where the line a·x + b·y + c = 0 enters and leaves a rectangle; null when it misses it.
  function lineWithin(a, b, c, [x0, x1], [y0, y1]) {
    const hits = [];
    if (b) for (const x of [x0, x1]) hits.push([x, -(a * x + c) / b]);
    if (a) for (const y of [y0, y1]) hits.push([-(b * y + c) / a, y]);
    const slack = 1e-9 * (Math.abs(x1 - x0) + Math.abs(y1 - y0));
    const inside = hits.filter(([x, y]) => x >= x0 - slack && x <= x1 + slack && y >= y0 - slack && y <= y1 + slack);
    const [from, to] = [d3.least(inside, (p) => p[0] + 1e-6 * p[1]), d3.greatest(inside, (p) => p[0] + 1e-6 * p[1])];
    return inside.length > 1 && from !== to ? [from, to] : null;
  }

  return {
    curved,
    symptom,
    templates,
    planes,
    placed,
    scoreAxis,
    axis,
    whisker,
    setting,
    luck,
    variance,
    calibration,
    sureness,
    folds,
    lossAxis,
    curve,
    thumb,
    scatter,
    scatterNote,
    errors,
    confusion,
    answer,
  };
})();

"use strict";
// Puts the charts into the page, draws them again when its width changes, and keeps the reader's place.
{
  const THUMBS = 12;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  let chosen = 0; // the trial whose learning curve is shown large

  const draws = {
    whiskers(table) {
      const head = table.querySelector(".axis");
      const cells = all("td.whisker", table);
      const rows = cells.map((cell) => study.trials[cell.dataset.index]);
      const shared = charts.scoreAxis(rows, Math.max(140, head.clientWidth));
      cells.forEach((cell) => cell.replaceChildren());
      head.replaceChildren(charts.axis(shared));
      if (shared.beyond) document.querySelector(".off").hidden = false;
      // In a table the drawing is as tall as its row, so that grid and band run through from row to row.
      const inTable = getComputedStyle(cells[0]).display === "table-cell";
      const heights = cells.map((cell) => (inTable ? cell.clientHeight + 1 : 30));
      cells.forEach((cell, i) => cell.append(charts.whisker(rows[i], heights[i], shared)));
    },
    setting: (box) => put(box, charts.setting(box.dataset.index, box.clientWidth)),
    answer: (box) => put(box, charts.answer(box.dataset.index, box.clientWidth)),
    luck: (box) => put(box, charts.luck(box.clientWidth)),
    variance: (box) => put(box, charts.variance(box.clientWidth)),
    calibration: (box) => put(box, charts.calibration(box.clientWidth)),
    sureness: (box) => put(box, charts.sureness(box.clientWidth)),
    symptom: (box) => put(box, charts.symptom(box.dataset.index, box.clientWidth)),
    templates: (box) => put(box, charts.templates(box.clientWidth)),
    planes: (box) => put(box, charts.planes(plane.map((select) => Number(select.value)), box.clientWidth)),
    folds: (box) => put(box, charts.folds(box.clientWidth)),
    curve: (box) => put(box, charts.curve(charts.curved[chosen], box.clientWidth)),
    thumbs(box) {
      const shown = charts.curved.slice(0, THUMBS);
      if (shown.length < 2) return;
      // one scale for trials of one loss; values of different losses cannot be compared
      const axis = (t) => charts.lossAxis(shown.filter((other) => other.loss === t.loss));
      box.replaceChildren(...shown.map((t, i) => thumbButton(t, i, axis(t))));
      press();
    },
    scatter(box) {
      put(box, charts.scatter(box.clientWidth));
      document.getElementById("outcome-note").textContent = charts.scatterNote();
    },
    errors: (box) => put(box, charts.errors(box.clientWidth)),
    confusion: (box) => put(box, charts.confusion(box.closest("figure").clientWidth)),
  };

  // A chart that has nothing to show takes its figure with it.
  function put(box, svg) {
    if (svg) box.replaceChildren(svg);
    else box.closest("figure").hidden = true;
  }

  // One chart that fails leaves the others standing.
  function draw(box) {
    try {
      draws[box.dataset.chart](box);
      box.dataset.drawn = "yes";
    } catch (error) {
      console.error(error);
      if (box.matches(".chart")) box.textContent = "This chart could not be drawn.";
    }
  }

  // The two features whose plane is drawn; they always differ.
  const plane = ["plane-x", "plane-y"].map((id) => document.getElementById(id)).filter(Boolean);

  function offerFeatures(select, which) {
    study.linear.names.forEach((name, i) => select.append(new Option(name, i)));
    select.value = which;
    select.addEventListener("change", () => {
      const other = plane[1 - which];
      if (other.value === select.value) other.value = Number(select.value) ? 0 : 1;
      draw(document.querySelector("[data-chart=planes]"));
    });
  }

  // A link to an explanation opens it.
  function openExplained() {
    const goal = location.hash.startsWith("#explain-") && document.getElementById(location.hash.slice(1));
    if (!goal) return;
    goal.open = true;
    goal.closest("#hints")?.setAttribute("open", "");
    goal.scrollIntoView({ block: "nearest" });
  }

  // The trial pointed at in one panel is ringed in all of them. Its text stands outside the drawing, which on a phone
  // is narrower than the text.
  function followTrial(event) {
    const dot = event.target.value;
    const rings = all("[data-ring]");
    rings.forEach((ring) => ring.classList.toggle("chosen", ring.dataset.ring === `${dot?.trial.number}`));
    const tip = document.getElementById("trial-tip");
    tip.hidden = !dot;
    if (!dot) return;
    tip.textContent = dot.text;
    const frame = tip.offsetParent.getBoundingClientRect();
    const ring = event.target.querySelector(".chosen").getBoundingClientRect();
    const left = ring.x + ring.width / 2 - frame.x - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(0, Math.min(frame.width - tip.offsetWidth, left))}px`;
    tip.style.top = `${ring.y - frame.y - tip.offsetHeight - 8}px`;
  }

  const drawAll = () => all("[data-chart]").forEach((box) => box.closest("details:not([open])") || draw(box));

  function thumbButton(t, i, axis) {
    const button = document.createElement("button");
    const name = document.createElement("span");
    button.type = "button";
    name.textContent = charts.placed(t);
    name.title = t.name;
    button.append(name, charts.thumb(t, axis));
    button.addEventListener("click", () => choose(i));
    return button;
  }

  const press = () => all(".thumbs button").forEach((b, i) => b.setAttribute("aria-pressed", i === chosen));

  function choose(i) {
    chosen = i;
    document.getElementById("curve-trial").value = i;
    press();
    draw(document.querySelector("[data-chart=curve]"));
  }

  function offerTrials(select) {
    charts.curved.forEach((t, i) => select.append(new Option(charts.placed(t), i)));
    select.addEventListener("change", () => choose(Number(select.value)));
    select.closest("p").hidden = charts.curved.length < 2;
  }

  function offerCopy(button) {
    const command = document.getElementById("command");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(command); // not permitted: leave it selected for the reader to copy
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  function drawWhenOpened(details) {
    details.addEventListener("toggle", () => details.open && all("[data-chart]", details).forEach(draw));
  }

  function drawWhenResized() {
    const width = () => document.documentElement.clientWidth;
    let drawn = width();
    let waiting;
    addEventListener("resize", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (width() !== drawn) drawAll();
        drawn = width();
      }, 80);
    });
  }

  // A page that reads itself again must not throw the reader back to the top, nor close what was opened.
  const placeKey = `foldwise ${location.pathname}`;

  function rememberPlace() {
    const open = all("details").flatMap((d, i) => (d.open ? [i] : []));
    const place = { top: scrollY, open, trial: charts.curved[chosen]?.number };
    sessionStorage.setItem(placeKey, JSON.stringify(place));
  }

  function returnToPlace() {
    const place = JSON.parse(sessionStorage.getItem(placeKey) ?? "null");
    if (!place) return;
    history.scrollRestoration = "manual";
    all("details").forEach((d, i) => (d.open = place.open.includes(i)));
    const trial = charts.curved.findIndex((t) => t.number === place.trial);
    if (trial > 0) choose(trial);
    drawAll();
    scrollTo(0, place.top);
  }

  const select = document.getElementById("curve-trial");
  const copy = document.getElementById("copy");
  if (select) offerTrials(select);
  if (copy) offerCopy(copy);
  plane.forEach(offerFeatures);
  addEventListener("hashchange", openExplained);
  openExplained();
  document.querySelector(".panels")?.addEventListener("input", followTrial);
  all("details").forEach(drawWhenOpened);
  drawAll();
  drawWhenResized();
  if (document.getElementById("live")) {
    try {
      returnToPlace();
      addEventListener("pagehide", rememberPlace);
    } catch {
      // A browser that keeps nothing for a file: the page works, it only forgets.
    }
  }
  document.documentElement.dataset.charts = "drawn";
}

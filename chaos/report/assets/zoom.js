// What part of the run is shown: by mouse, by keyboard, by buttons, and by the window over the overview below the timeline.

const LEAST_S = 0.5; // the shortest time that is shown

const view = {
  from: 0,
  until: 1,
  whole: [0, 1],
  changed: [],

  start(report) {
    const ends = [
      ...report.phases.map((each) => each.until_s),
      ...report.strikes.map(endOf),
      ...report.leaders.map((each) => each.until_s),
      ...report.calls.map((each) => each.at_s + 1),
    ];
    this.whole = [0, Math.max(1, ...ends)];
    [this.from, this.until] = this.whole;
  },

  show(from, until) {
    const length = Math.min(Math.max(until - from, LEAST_S), this.whole[1]);
    const middle = (from + until) / 2;
    this.from = Math.min(Math.max(until - from < LEAST_S ? middle - length / 2 : from, 0), this.whole[1] - length);
    this.until = this.from + length;
    this.changed.forEach((each) => each());
  },

  all: () => view.show(...view.whole),
  move: (by) => view.show(view.from + by, view.until + by),

  zoom(factor, around = (view.from + view.until) / 2) {
    const length = (this.until - this.from) * factor;
    const share = (around - this.from) / (this.until - this.from);
    this.show(around - length * share, around - length * share + length);
  },
};

function startTools(report) {
  const told = make("output", { "aria-label": "Shown" });
  const tool = (label, name, work) => make("button", { type: "button", "aria-label": name, title: name, click: work }, label);
  const length = () => view.until - view.from;
  find(".tools").append(
    told,
    tool("−", "Zoom out", () => view.zoom(2)),
    tool("+", "Zoom in", () => view.zoom(0.5)),
    tool("←", "Earlier", () => view.move(-length() / 2)),
    tool("→", "Later", () => view.move(length() / 2)),
    tool("All", "Show all", view.all),
  );
  const tell = () => (told.textContent = `${moment(view.from, length() / 100)} to ${moment(view.until, length() / 100)}`);
  view.changed.push(tell);
  tell();
  for (const gap of report.gaps.slice(0, 5)) {
    const show = () => view.show(gap.from_s - 3, gap.until_s + 3);
    const label = `${seconds(gap.until_s - gap.from_s)} from ${moment(gap.from_s, 0.1)}`;
    find(".gaps ol").append(make("li", {}, make("button", { type: "button", class: "link", click: show }, label), make("span", { class: "quiet" }, gap.during.join("; ") || "no strike")));
  }
  find(".gaps").hidden = report.gaps.length === 0;
}

// --- on the timeline itself ---

function listen(timeline) {
  const svg = timeline.svg;
  const at = (event) => timeline.x.invert(Math.min(timeline.inside.right, Math.max(timeline.inside.left, event.clientX - svg.getBoundingClientRect().left)));
  let began = null;
  svg.addEventListener("pointermove", (event) => {
    if (began !== null) return select(timeline, began, at(event));
    const bar = event.target.closest(".strike");
    const lines = timeline.read(at(event));
    tip.show(event.clientX, event.clientY, bar ? aboutStrike(timeline.report.strikes[bar.dataset.number]) : lines);
  });
  svg.addEventListener("pointerdown", (event) => {
    if (event.button || event.pointerType !== "mouse" || event.target.closest(".strike")) return;
    began = at(event);
    svg.setPointerCapture(event.pointerId);
    tip.hide();
  });
  const end = (event) => {
    if (began === null) return;
    const [from, until] = [began, at(event)].sort((a, b) => a - b);
    began = null;
    timeline.drawCursor();
    if (timeline.x(until) - timeline.x(from) > 5) view.show(from, until);
  };
  svg.addEventListener("pointerup", end);
  svg.addEventListener("pointercancel", () => (began = null));
  svg.addEventListener("dblclick", view.all);
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the page scrolls as ever
    event.preventDefault();
    view.zoom(event.deltaY > 0 ? 1.25 : 0.8, at(event));
  }, { passive: false });
  svg.addEventListener("keydown", (event) => keyOnTimeline(timeline, event));
}

function select(timeline, one, other) {
  const [left, right] = [timeline.x(one), timeline.x(other)].sort((a, b) => a - b);
  timeline.svg.querySelector(".over").replaceChildren(draw("rect", { class: "selection", x: left, y: 6, width: right - left, height: timeline.height - 30 }));
}

function keyOnTimeline(timeline, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const strike = event.target.closest(".strike");
  const length = view.until - view.from;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const zoom = { "+": 0.5, "=": 0.5, "-": 2, "−": 2 }[event.key];
  if (zoom) view.zoom(zoom, timeline.cursor ?? undefined);
  else if (event.key === "0" || (event.key === "Escape" && !strike)) view.all();
  else if (event.key === "Escape") timeline.svg.focus();
  else if (step && strike) timeline.focus(nextStrike(timeline.report.strikes, Number(strike.dataset.number), step));
  else if (step && event.shiftKey) view.move((step * length) / 4);
  else if (step) readOn(timeline, step);
  else if ((event.key === "Enter" || event.key === " ") && strike) {
    const own = timeline.report.strikes[strike.dataset.number];
    view.show(own.at_s - 3, endOf(own) + 3);
  } else return;
  event.preventDefault();
}

function nextStrike(strikes, number, step) {
  return (number + step + strikes.length) % strikes.length;
}

// By a second, or further where a second is less than a pixel or two.
function readOn(timeline, step) {
  const stride = Math.max(1, Math.round((view.until - view.from) / 200));
  const at = timeline.cursor === null ? (view.from + view.until) / 2 : timeline.cursor + step * stride;
  const middle = Math.min(view.whole[1], Math.max(0, Math.floor(at) + 0.5));
  if (middle < view.from || middle > view.until) view.move(step * stride);
  const lines = timeline.read(middle);
  const box = timeline.svg.getBoundingClientRect();
  tip.show(box.left + timeline.x(middle), Math.max(60, box.top + 40), lines);
  find("#timeline [aria-live]").textContent = lines.join(". ");
}

// --- the overview ---

function startOverview(report) {
  const place = find(".overview");
  const redraw = perFrame(() => drawOverview(place, report));
  view.changed.push(redraw);
  new ResizeObserver(redraw).observe(place);
  drawOverview(place, report);
}

function drawOverview(place, report) {
  const width = Math.max(300, place.clientWidth);
  const inside = { left: width < 560 ? 58 : 80, right: width - 12 };
  const x = linear(...view.whole, inside.left, inside.right);
  const height = 46;
  const most = Math.max(1, ...report.calls.map((each) => each.returned + each.failed + each.unknown));
  const y = linear(0, most, height - 8, 12);
  const area = report.calls.map((each) => `L${x(each.at_s + 0.5).toFixed(1)} ${y(each.returned + each.failed + each.unknown).toFixed(1)}`).join("");
  const [left, right] = [x(view.from), x(view.until)];
  const focused = document.activeElement?.closest?.(".overview")?.querySelector(":focus")?.dataset.part;
  const svg = draw(
    "svg",
    { role: "group", "aria-label": "What part of the run is shown", viewBox: `0 0 ${width} ${height}`, width, height },
    draw("text", { x: inside.left - 8, y: 27, "text-anchor": "end" }, "shown"),
    area ? draw("path", { class: "returned", d: `M${x(report.calls[0].at_s)} ${height - 8}${area}L${x(report.calls.at(-1).at_s + 1)} ${height - 8}Z` }) : null,
    report.strikes.map((each) => draw("g", { class: `f-${familyOf(each)} strike` }, draw("rect", { x: x(each.at_s), y: 4, width: Math.max(1.5, x(endOf(each)) - x(each.at_s)), height: 4 }))),
    draw("rect", { class: "shade", x: inside.left, y: 2, width: Math.max(0, left - inside.left), height: height - 6 }),
    draw("rect", { class: "shade", x: right, y: 2, width: Math.max(0, inside.right - right), height: height - 6 }),
    part("window", "Window", { x: left, y: 2, width: right - left, height: height - 6 }, x, (by) => view.move(by)),
    part("begin", "Begin of the window", { x: left - 4, y: 10, width: 8, height: height - 22, rx: 3 }, x, (by) => view.show(Math.min(view.from + by, view.until - LEAST_S), view.until)),
    part("end", "End of the window", { x: right - 4, y: 10, width: 8, height: height - 22, rx: 3 }, x, (by) => view.show(view.from, Math.max(view.until + by, view.from + LEAST_S))),
  );
  place.replaceChildren(svg);
  if (focused) svg.querySelector(`[data-part="${focused}"]`).focus({ preventScroll: true });
}

// A part that is dragged, or moved by arrow keys. While it is dragged the overview is drawn anew, so the window listens.
function part(name, label, size, x, move) {
  const second = name === "end" ? view.until : view.from;
  return draw("rect", {
    ...size,
    class: name === "window" ? "window" : "handle",
    "data-part": name,
    role: "slider",
    tabindex: "0",
    "aria-label": label,
    "aria-valuemin": 0,
    "aria-valuemax": Math.round(view.whole[1]),
    "aria-valuenow": Math.round(second),
    "aria-valuetext": name === "window" ? `${moment(view.from)} to ${moment(view.until)}` : moment(second),
    keydown: (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      move(step * Math.max(0.1, (view.until - view.from) / (event.shiftKey ? 4 : 40)));
    },
    pointerdown: (event) => {
      event.preventDefault();
      event.currentTarget.focus();
      let last = event.clientX;
      const drag = (moved) => {
        move(x.invert(moved.clientX) - x.invert(last));
        last = moved.clientX;
      };
      const end = () => ["pointermove", "pointerup", "pointercancel"].forEach((kind) => removeEventListener(kind, kind === "pointermove" ? drag : end));
      addEventListener("pointermove", drag);
      addEventListener("pointerup", end);
      addEventListener("pointercancel", end);
    },
  });
}

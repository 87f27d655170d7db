// One picture on one axis of time: phases, strikes by family, who led, calls by how they ended, and how long they took.

const FAMILIES = ["process", "network", "disk", "clock", "agent", "load", "operator"];
const ENDINGS = ["returned", "failed", "unknown"];
const WAITS = ["p99", "p50", "max"]; // the last one lies above the others
const SHADED_S = 1; // a time without accepted submissions as long as this is shaded
const HEADING = 24;
const STRIKE = 11; // the height of a row of strikes
const LEAD = 17;

const familyOf = (strike) => (FAMILIES.includes(strike.family) ? strike.family : "other");
const endOf = (strike) => Math.max(strike.until_s, strike.at_s);
const isShown = (strike) => endOf(strike) >= view.from && strike.at_s <= view.until;

const timeline = {
  start(report) {
    this.report = report;
    this.active = 0; // the strike that Tab reaches
    this.cursor = null;
    this.chart = find(".chart");
    this.redraw = perFrame(() => this.draw());
    view.changed.push(this.redraw);
    new ResizeObserver(this.redraw).observe(this.chart);
    this.chart.addEventListener("pointerleave", () => this.read(null));
    this.chart.addEventListener("focusout", () => tip.hide());
    addEventListener("scroll", () => tip.hide(), { passive: true });
    this.lanes = stackByFamily(report.strikes);
    this.draw();
  },

  draw() {
    const width = Math.max(300, this.chart.clientWidth);
    const gutter = width < 560 ? 58 : 80;
    this.x = linear(view.from, view.until, gutter, width - 12);
    this.inside = { left: gutter, right: width - 12 };
    const svg = draw("svg", { role: "group", tabindex: "0", "aria-label": "Timeline. Arrow keys read it second by second, plus and minus zoom, Shift with arrows moves, 0 shows all. Tab leads to the strikes." });
    svg.append(definitions(this.inside));
    let y = this.phases(svg, 6);
    for (const panel of [this.strikes, this.leaders, this.calls, this.waits]) y = panel.call(this, svg, y);
    this.axis(svg, y);
    this.height = y + 24;
    svg.prepend(...this.report.phases.slice(1).flatMap((phase) => this.edge(phase.from_s, y)));
    fill(svg, { viewBox: `0 0 ${width} ${this.height}`, width, height: this.height }, [draw("g", { class: "over" })]);
    const focused = document.activeElement?.closest?.(".chart .strike")?.dataset.number;
    const wasChart = document.activeElement?.matches?.(".chart svg");
    this.chart.replaceChildren(svg);
    this.svg = svg;
    if (wasChart) svg.focus({ preventScroll: true });
    if (focused) this.focus(Number(focused), false);
    listen(this);
    this.drawCursor();
  },

  heading(svg, y, text, legend = []) {
    svg.append(draw("text", { class: "heading", x: 10, y: y + 16 }, text));
    let x = 10 + text.length * 6.9 + 14;
    for (const [name, label] of legend) {
      const mark = WAITS.includes(name) ? draw("line", { class: name, x1: x, x2: x + 14, y1: y + 12, y2: y + 12 }) : draw("rect", { class: name, x: x + 3, y: y + 7, width: 10, height: 10, rx: 2 });
      svg.append(draw("g", { class: "key" }, mark, draw("text", { x: x + 18, y: y + 16 }, label)));
      x += 18 + label.length * 6 + 12;
    }
    return y + HEADING;
  },

  phases(svg, y) {
    for (const phase of this.report.phases) {
      const [left, right] = this.clip(phase.from_s, phase.until_s || view.whole[1]);
      if (right <= left) continue;
      svg.append(draw("rect", { class: `phase ${phase.name === "faults" ? "faults" : ""}`, x: left, y, width: right - left, height: 18 }));
      if (right - left > phase.name.length * 6.4 + 6) svg.append(draw("text", { x: left + 5, y: y + 13 }, phase.name));
    }
    return this.report.phases.length ? y + 22 : y;
  },

  edge(at, bottom) {
    return at > view.from && at < view.until ? [draw("line", { class: "edge", x1: this.x(at), x2: this.x(at), y1: 6, y2: bottom })] : [];
  },

  // --- strikes ---

  strikes(svg, y) {
    if (!this.report.strikes.length) return y;
    y = this.heading(svg, y, "Strikes");
    if (!isShown(this.report.strikes[this.active])) this.active = Math.max(0, this.report.strikes.findIndex(isShown));
    for (const { family, rows, strikes } of this.lanes) {
      const height = rows * (STRIKE + 2) + 4;
      svg.append(draw("rect", { class: "lane", x: this.inside.left, y, width: this.inside.right - this.inside.left, height, rx: 3 }));
      svg.append(draw("text", { x: this.inside.left - 8, y: y + 13, "text-anchor": "end" }, family));
      for (const { strike, row } of strikes) this.bar(svg, strike, y + 3 + row * (STRIKE + 2));
      y += height + 3;
    }
    return y + 4;
  },

  bar(svg, strike, y) {
    const [left, right] = this.clip(strike.at_s, endOf(strike));
    if (!isShown(strike)) return;
    const number = this.report.strikes.indexOf(strike);
    const size = { x: left, y, width: Math.max(3, right - left), height: STRIKE, rx: 2.5 };
    const hatched = strike.outcome === "failed" || strike.outcome === "under way";
    const bar = draw(
      "g",
      {
        class: `strike f-${familyOf(strike)} ${strike.outcome === "skipped" ? "skipped" : ""} ${hatched ? "bad" : ""}`,
        role: "button",
        tabindex: number === this.active ? "0" : "-1",
        "aria-label": aboutStrike(strike).join(". "),
        "data-number": String(number),
        focus: (event) => {
          this.active = number;
          const box = event.currentTarget.getBoundingClientRect();
          if (event.currentTarget.matches(":focus-visible")) tip.show(box.left, box.bottom - 10, aboutStrike(strike));
        },
        blur: () => tip.hide(),
        click: () => strikesTable.mark(strike),
      },
      draw("rect", size),
      hatched ? draw("rect", { ...size, class: "hatched" }) : null,
    );
    svg.append(bar);
  },

  // Move the keyboard to a strike, and the picture to where it is.
  focus(number, moving = true) {
    const strike = this.report.strikes[number];
    if (!strike) return;
    this.active = number;
    if (moving && !isShown(strike)) {
      view.move(strike.at_s - (view.until - view.from) / 2 - view.from);
      this.draw();
    }
    this.svg.querySelectorAll(".strike").forEach((each) => each.setAttribute("tabindex", each.dataset.number === String(number) ? "0" : "-1"));
    this.svg.querySelector(`[data-number="${number}"]`)?.focus({ preventScroll: !moving });
  },

  // --- who led ---

  leaders(svg, y) {
    const managers = [...new Set([...(this.report.head.cluster?.managers ?? []), ...this.report.leaders.map((each) => each.manager)])];
    if (!this.report.leaders.length) return y;
    y = this.heading(svg, y, "Who led", [["lead", "with its term"]]);
    for (const manager of managers) {
      svg.append(draw("rect", { class: "lane", x: this.inside.left, y, width: this.inside.right - this.inside.left, height: LEAD, rx: 3 }));
      svg.append(draw("text", { x: this.inside.left - 8, y: y + 12.5, "text-anchor": "end" }, manager));
      for (const lead of this.report.leaders.filter((each) => each.manager === manager)) this.lead(svg, lead, y);
      y += LEAD + 3;
    }
    return y + 4;
  },

  lead(svg, lead, y) {
    if (lead.until_s < view.from || lead.from_s > view.until) return;
    const [left, right] = this.clip(lead.from_s, lead.until_s);
    svg.append(draw("rect", { class: "lead", x: left, y: y + 1, width: Math.max(3, right - left), height: LEAD - 2, rx: 2.5 }));
    const label = String(lead.term);
    if (right - left > label.length * 7 + 6) svg.append(draw("text", { class: "lead-term", x: left + 4, y: y + 12.5 }, label));
  },

  // --- calls ---

  calls(svg, y) {
    if (!this.report.calls.length) return y;
    y = this.heading(svg, y, this.inside.right < 560 ? "Calls/s" : "Calls per second", ENDINGS.map((name) => [name, name]));
    const height = 110;
    const shown = this.shownBuckets();
    const marks = countMarks(Math.max(...shown.map((each) => each.returned + each.failed + each.unknown), 1));
    const scale = linear(0, marks.at(-1), y + height, y + 4);
    for (const gap of this.report.gaps) this.gap(svg, gap, y, height);
    for (const mark of marks) this.gridline(svg, scale(mark), mark.toLocaleString("en"));
    const below = shown.map(() => 0);
    for (const name of ENDINGS) {
      let path = "";
      shown.forEach((bucket, number) => {
        if (!bucket[name]) return;
        const [left, right] = this.clip(bucket.at_s, bucket.at_s + 1);
        const space = right - left > 4 ? 1 : 0;
        const bottom = scale(below[number]);
        below[number] += bucket[name];
        path += `M${left.toFixed(1)} ${bottom.toFixed(1)}V${scale(below[number]).toFixed(1)}H${(right - space).toFixed(1)}V${bottom.toFixed(1)}Z`;
      });
      svg.append(draw("path", { class: name, d: path }));
    }
    return y + height + 8;
  },

  gap(svg, gap, y, height) {
    if (gap.until_s - gap.from_s < SHADED_S || gap.until_s < view.from || gap.from_s > view.until) return;
    const [left, right] = this.clip(gap.from_s, gap.until_s);
    svg.append(draw("rect", { class: "gap", x: left, y: y + 4, width: right - left, height: height - 4 }));
  },

  // --- latencies ---

  waits(svg, y) {
    if (!this.report.calls.some((each) => each.returned)) return y;
    y = this.heading(svg, y, "Latency", [["p50", "p50"], ["p99", "p99"], ["max", "max"]]);
    const height = 120;
    const waits = this.report.calls.filter((each) => each.returned);
    const least = 10 ** Math.floor(Math.log10(Math.max(0.1, Math.min(...waits.map((each) => each.p50_ms)))));
    const most = 10 ** Math.ceil(Math.log10(Math.max(least * 10, ...waits.map((each) => each.max_ms))));
    const scale = logarithmic(least, most, y + height, y + 4);
    for (const mark of powersOfTen(least, most)) this.gridline(svg, scale(mark), mark >= 1000 ? `${mark / 1000} s` : `${mark} ms`);
    for (const name of WAITS) {
      let path = "";
      let pen = "M";
      for (const bucket of this.shownBuckets()) {
        if (bucket.returned) path += `${pen}${this.x(bucket.at_s + 0.5).toFixed(1)} ${scale(bucket[`${name}_ms`]).toFixed(1)}h.01`;
        pen = bucket.returned && name !== "max" ? "L" : "M"; // dots, since it may well lie on p99
      }
      const small = name === "max" && this.x(1) - this.x(0) < 3.5 ? "small" : "";
      svg.append(draw("path", { class: `${name} ${small}`, d: path, "clip-path": "url(#inside)" }));
    }
    return y + height + 6;
  },

  gridline(svg, y, label) {
    svg.append(draw("line", { class: "grid", x1: this.inside.left, x2: this.inside.right, y1: y, y2: y }));
    svg.append(draw("text", { x: this.inside.left - 8, y: y + 4, "text-anchor": "end" }, label));
  },

  axis(svg, y) {
    const { step, marks } = timeMarks(view.from, view.until, (this.inside.right - this.inside.left) / 72);
    svg.append(draw("line", { class: "axis", x1: this.inside.left, x2: this.inside.right, y1: y, y2: y }));
    for (const mark of marks) {
      svg.append(draw("line", { class: "axis", x1: this.x(mark), x2: this.x(mark), y1: y, y2: y + 4 }));
      svg.append(draw("text", { x: this.x(mark), y: y + 16, "text-anchor": this.x(mark) > this.inside.right - 16 ? "end" : "middle" }, moment(mark, step)));
    }
  },

  // --- reading it ---

  shownBuckets() {
    return this.report.calls.filter((each) => each.at_s + 1 > view.from && each.at_s < view.until);
  },

  clip(from, until) {
    return [from, until].map((each) => Math.min(this.inside.right, Math.max(this.inside.left, this.x(each))));
  },

  // Put the reading line at a moment, null for none; gives what stands there, in lines.
  read(at) {
    this.cursor = at;
    this.drawCursor();
    if (at === null) tip.hide();
    return at === null ? [] : aboutMoment(this.report, at);
  },

  drawCursor() {
    const over = this.svg.querySelector(".over");
    over.replaceChildren();
    if (this.cursor === null || this.cursor < view.from || this.cursor > view.until) return;
    const x = this.x(this.cursor);
    over.append(draw("line", { class: "cursor", x1: x, x2: x, y1: 6, y2: this.height - 24 }));
  },
};

function definitions(inside) {
  return draw(
    "defs",
    {},
    draw("clipPath", { id: "inside" }, draw("rect", { x: inside.left, y: 0, width: inside.right - inside.left, height: 4000 })),
    draw("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, draw("rect", { x: 0, y: 0, width: 2, height: 5, fill: "var(--hatch)" })),
  );
}

// The families that struck, each with its strikes in rows that don't overlap.
function stackByFamily(strikes) {
  return [...FAMILIES, "other"].flatMap((family) => {
    const own = strikes.filter((each) => familyOf(each) === family).sort((a, b) => a.at_s - b.at_s);
    if (!own.length) return [];
    const rows = stack(own.map((each) => [each.at_s, endOf(each)]), 0.4);
    return [{ family, rows: Math.max(...rows) + 1, strikes: own.map((strike, number) => ({ strike, row: rows[number] })) }];
  });
}

function aboutStrike(strike) {
  const whom = strike.targets.length ? `: ${strike.targets.join(", ")}` : "";
  return [
    `${strike.nemesis}${whom}`,
    `${strike.family}, ${strike.outcome}, ${moment(strike.at_s, 0.1)} to ${moment(endOf(strike), 0.1)}`,
    ...strike.notes.slice(0, 6),
    ...(strike.notes.length > 6 ? [`and ${strike.notes.length - 6} more notes`] : []),
  ];
}

function aboutMoment(report, at) {
  const bucket = report.calls.find((each) => each.at_s === Math.floor(at));
  const leads = report.leaders.filter((each) => each.from_s <= at && at <= each.until_s);
  const strikes = report.strikes.filter((each) => each.at_s <= at && at <= endOf(each));
  return [
    moment(at, 0.1),
    report.leaders.length ? (leads.map((each) => `${each.manager} leads (term ${each.term})`).join(", ") || "nobody is known to lead") : null,
    bucket ? `${bucket.returned} returned, ${bucket.failed} failed, ${bucket.unknown} unknown` : null,
    bucket?.returned ? `p50 ${milliseconds(bucket.p50_ms)}, p99 ${milliseconds(bucket.p99_ms)}, max ${milliseconds(bucket.max_ms)}` : null,
    ...strikes.slice(0, 6).map((each) => `${each.nemesis} ${each.targets.join(", ")}${each.outcome === "done" ? "" : ` (${each.outcome})`}`),
    strikes.length > 6 ? `and ${strikes.length - 6} more strikes` : null,
  ].filter((line) => line !== null);
}

// The table of strikes: sorted by any column, filtered by words, family and outcome.

const strikesTable = {
  start(report) {
    this.strikes = report.strikes;
    this.by = "at";
    this.down = false;
    this.marked = null;
    const redraw = () => this.draw();
    this.words = make("input", { type: "search", id: "strike-words", input: redraw, placeholder: "kill m2", autocomplete: "off" });
    this.family = choice("strike-family", "all families", report.strikes.map((each) => each.family), redraw);
    this.outcome = choice("strike-outcome", "all outcomes", report.strikes.map((each) => each.outcome), redraw);
    find("#strikes").hidden = !report.strikes.length;
    find("#strikes .filters").append(
      make("label", { class: "wide-one" }, "Find", this.words),
      make("label", {}, "Family", this.family),
      make("label", {}, "Outcome", this.outcome),
    );
    find("#strikes table").classList.add("cards");
    whenNear(find("#strikes"), redraw);
  },

  columns: {
    at: { name: "at", number: true, value: (each) => each.at_s, show: (each) => moment(each.at_s, 0.1) },
    took: { name: "for", number: true, value: (each) => endOf(each) - each.at_s, show: (each) => seconds(endOf(each) - each.at_s) },
    family: { name: "family", value: (each) => each.family, show: (each) => [make("span", { class: `swatch f-${familyOf(each)}` }), each.family] },
    nemesis: { name: "nemesis", value: (each) => each.nemesis, show: (each) => make("button", { type: "button", class: "link", click: () => strikesTable.zoom(each), "aria-label": `${each.nemesis}: show it on the timeline` }, each.nemesis) },
    targets: { name: "targets", value: (each) => each.targets.join(", "), show: (each) => each.targets.join(", ") },
    outcome: { name: "outcome", value: (each) => each.outcome, show: (each) => make("span", { class: `ended ${{ failed: "failed", skipped: "skipped" }[each.outcome] ?? ""}` }, each.outcome) },
    notes: { name: "notes", value: (each) => each.notes.join("\n"), show: (each) => each.notes.map((note) => make("span", { class: "note" }, note)) },
  },

  draw() {
    const kept = this.strikes.filter((each) => this.keeps(each));
    const value = this.columns[this.by].value;
    kept.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a.number - b.number) * (this.down ? -1 : 1));
    find("#strikes .count").textContent = kept.length === this.strikes.length ? counted(kept.length, "strike") : `${kept.length} of ${counted(this.strikes.length, "strike")}`;
    find("#strikes table").replaceChildren(make("thead", {}, this.headings()), make("tbody", {}, kept.map((each) => this.row(each))));
  },

  keeps(strike) {
    const text = [strike.nemesis, ...strike.targets, ...strike.notes].join(" ").toLowerCase();
    const words = this.words.value.toLowerCase().split(/\s+/);
    return words.every((word) => text.includes(word)) && (!this.family.value || this.family.value === strike.family) && (!this.outcome.value || this.outcome.value === strike.outcome);
  },

  headings() {
    return make("tr", {}, Object.entries(this.columns).map(([key, column]) => {
      const sort = () => {
        this.down = this.by === key && !this.down;
        this.by = key;
        this.draw();
        find(`#strikes [data-column="${key}"] button`).focus();
      };
      const order = this.by === key ? (this.down ? "descending" : "ascending") : "none";
      return make("th", { scope: "col", "aria-sort": order, "data-column": key, class: column.number ? "number" : "" }, make("button", { type: "button", click: sort }, column.name));
    }));
  },

  row(strike) {
    const cells = Object.values(this.columns).map((column) => {
      const empty = column.value(strike) === "" ? "empty" : "";
      return make("td", { class: `${column.number ? "number" : ""} ${empty}`, "data-label": column.name }, make("span", {}, column.show(strike)));
    });
    return make("tr", { class: strike === this.marked ? "marked" : "", "data-number": strike.number }, cells);
  },

  // Show where in the table a strike of the timeline stands.
  mark(strike) {
    this.marked = strike;
    [this.words.value, this.family.value, this.outcome.value] = ["", "", ""];
    this.draw();
    const row = find("#strikes tr.marked");
    row.scrollIntoView({ block: "center" });
    row.querySelector("button").focus({ preventScroll: true });
  },

  zoom(strike) {
    const margin = Math.max(3, (endOf(strike) - strike.at_s) / 2);
    view.show(strike.at_s - margin, endOf(strike) + margin);
    timeline.draw();
    find("#timeline").scrollIntoView();
    timeline.focus(timeline.report.strikes.indexOf(strike), false);
  },
};

function choice(id, all, values, changed) {
  const options = [...new Set(values)].sort().map((each) => make("option", { value: each }, each));
  return make("select", { id, change: changed }, make("option", { value: "" }, all), options);
}

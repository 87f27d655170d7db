// Histories: found by submission id, job or client, drawn once somebody opens them.

const PAGE = 40; // histories shown at once
const CALLS = 200; // calls of one history shown at once
const ROW = 22;

// The fields of a call, which the document holds as an array.
const [CLIENT, KIND, FROM, UNTIL, ENDING, RESULT] = [0, 1, 2, 3, 4, 5];

const histories = {
  start(report) {
    this.report = report;
    this.suspects = new Set(report.suspects);
    this.keys = Object.keys(report.histories).sort((a, b) => this.suspects.has(b) - this.suspects.has(a)); // ids like "12" come first by themselves
    this.shown = PAGE;
    const search = () => {
      this.shown = PAGE;
      this.draw();
    };
    this.words = make("input", { type: "search", id: "history-words", input: perFrame(search), placeholder: "submission id, client, or: job 12", autocomplete: "off", spellcheck: "false" });
    this.kind = make("select", { id: "history-kind", change: search }, [["", "all"], ["suspect", "that a verdict speaks of"], ["doubtful", "with a call of unknown end"], ["failed", "with a failed call"]].map(([value, name]) => make("option", { value }, name)));
    find("#histories").hidden = !this.keys.length;
    find("#histories .filters").append(make("label", { class: "wide-one" }, "Find", this.words), make("label", {}, "Show", this.kind));
    find("#histories .more").addEventListener("click", () => {
      this.shown += PAGE;
      this.draw();
    });
    whenNear(find("#histories"), () => this.draw());
  },

  draw() {
    const found = this.keys.filter((key) => this.keeps(key));
    const exact = found.indexOf(this.words.value.trim());
    if (exact > 0) found.unshift(...found.splice(exact, 1));
    const shown = found.slice(0, this.shown);
    const list = find("#histories .list");
    const known = new Map([...list.children].map((each) => [each.dataset.key, each]));
    // Only if it changed: what is put in anew loses the keyboard.
    if ([...known.keys()].join("\n") !== shown.join("\n")) list.replaceChildren(...shown.map((key) => known.get(key) ?? this.item(key)));
    find("#histories .count").textContent = `${found.length.toLocaleString("en")} of ${this.keys.length.toLocaleString("en")} histories${shown.length < found.length ? `, the first ${shown.length} shown` : ""}`;
    find("#histories .more").hidden = shown.length >= found.length;
  },

  keeps(key) {
    const calls = this.report.histories[key];
    if (this.kind.value === "suspect" && !this.suspects.has(key)) return false;
    if (this.kind.value === "doubtful" && !calls.some((each) => each[ENDING] === "unknown")) return false;
    if (this.kind.value === "failed" && !calls.some((each) => each[ENDING] === "failed")) return false;
    const words = this.words.value.trim().toLowerCase();
    const job = /^job \d+$/.test(words);
    return !words || key.toLowerCase().includes(words) || calls.some((each) => (job ? told(each).split(/[:,]/)[0] === words : each[CLIENT].toLowerCase() === words));
  },

  item(key) {
    const calls = this.report.histories[key];
    const unknown = calls.filter((each) => each[ENDING] === "unknown").length;
    const body = make("div", { class: "calls" });
    const opened = (event) => {
      if (event.currentTarget.open && !body.hasChildNodes()) this.show(key, body);
    };
    return make(
      "details",
      { "data-key": key, toggle: opened },
      make(
        "summary",
        {},
        make("span", { class: "mono" }, key),
        make("span", { class: "quiet" }, `${counted(calls.length, "call")}, from ${moment(calls[0][FROM], 0.1)}`),
        this.suspects.has(key) ? make("span", { class: "mark suspect" }, "a verdict speaks of it") : null,
        unknown ? make("span", { class: "mark doubtful" }, `${unknown} unknown`) : null,
      ),
      body,
    );
  },

  // From a sentence to the history that it speaks of.
  open(key) {
    this.words.value = key;
    this.kind.value = "";
    this.draw();
    const item = [...find("#histories .list").children].find((each) => each.dataset.key === key);
    item.open = true;
    item.scrollIntoView({ block: "start" });
    item.querySelector("summary").focus({ preventScroll: true });
  },

  show(key, body) {
    const calls = this.report.histories[key];
    const some = calls.slice(0, CALLS);
    body.append(drawCalls(some, Math.max(280, body.clientWidth - 24), this.report.strikes, `Calls about ${key} against time; the table below says the same`), callsTable(some));
    if (calls.length > some.length) body.append(make("p", { class: "quiet" }, `The first ${CALLS} of ${calls.length} calls are shown; report.json has all.`));
  },
};

const told = (call) => call[RESULT] ?? "";

// A bar for each call; one whose end nobody knows goes on to the edge. Calls of one client share its rows.
function drawCalls(calls, width, strikes, label) {
  const from = Math.min(...calls.map((each) => each[FROM]));
  const known = Math.max(...calls.map((each) => each[UNTIL] ?? each[FROM]));
  const margin = Math.max(0.002, (known - from) * 0.06);
  const gutter = Math.min(130, width / 4);
  const x = linear(from - margin, known + 4 * margin, gutter, width - 8);
  const clients = [...new Set(calls.map((each) => each[CLIENT]))];
  const end = (each) => each[UNTIL] ?? Infinity;
  const svg = draw("svg", { role: "img", "aria-label": label });
  let y = 4;
  const during = strikes.filter((each) => each.at_s < x.invert(width) && endOf(each) > from - margin && each.outcome !== "skipped");
  if (during.length) {
    svg.append(draw("text", { x: gutter - 8, y: y + 10, "text-anchor": "end" }, "strikes"));
    for (const strike of during) {
      const [left, right] = [Math.max(gutter, x(strike.at_s)), Math.min(width - 8, x(endOf(strike)))];
      svg.append(draw("g", { class: `strike f-${familyOf(strike)}` }, draw("rect", { x: left, y: y + 3, width: Math.max(2, right - left), height: 7, rx: 2 }, draw("title", {}, aboutStrike(strike).slice(0, 2).join("; ")))));
    }
    y += 18;
  }
  for (const client of clients) {
    const own = calls.filter((each) => each[CLIENT] === client);
    const rows = stack(own.map((each) => [each[FROM], end(each)]), 0);
    const height = (Math.max(...rows) + 1) * ROW;
    svg.append(draw("rect", { class: "lane", x: gutter, y, width: width - 8 - gutter, height, rx: 3 }), draw("text", { x: gutter - 8, y: y + 15, "text-anchor": "end" }, client.length > 20 ? `${client.slice(0, 19)}…` : client));
    own.forEach((call, number) => svg.append(...callBar(call, own, rows, number, x, y + rows[number] * ROW, width)));
    y += height + 3;
  }
  const { step, marks } = timeMarks(from - margin, known + 4 * margin, (width - gutter) / 90);
  for (const mark of marks) svg.append(draw("line", { class: "axis", x1: x(mark), x2: x(mark), y1: y, y2: y + 4 }), draw("text", { x: x(mark), y: y + 16, "text-anchor": "middle" }, moment(mark, step)));
  return fill(svg, { viewBox: `0 0 ${width} ${y + 22}`, width, height: y + 22 }, []);
}

// The bar, and beside it what was asked and told, where the next call of its row leaves room.
function callBar(call, own, rows, number, x, y, width) {
  const right = call[UNTIL] === null ? width - 8 : x(call[UNTIL]);
  const text = `${call[KIND]} → ${told(call) || call[ENDING]}`;
  const bar = draw("rect", { class: call[ENDING], x: x(call[FROM]), y: y + 4, width: Math.max(3, right - x(call[FROM])), height: ROW - 8, rx: 3, "fill-opacity": call[ENDING] === "unknown" ? 0.45 : 1 }, draw("title", {}, text));
  const next = own.findIndex((_, other) => other > number && rows[other] === rows[number]);
  const edge = next < 0 ? width - 8 : x(own[next][FROM]);
  const within = call[UNTIL] === null;
  const start = within ? x(call[FROM]) + 6 : Math.max(right, x(call[FROM]) + 3) + 4;
  return start + text.length * 6 < edge ? [bar, draw("text", { class: "told", x: start, y: y + 15 }, text)] : [bar];
}

function callsTable(calls) {
  const columns = ["client", "asked", "from", "took", "ended", "told"];
  const headings = make("tr", {}, columns.map((name) => make("th", { class: `plain ${["from", "took"].includes(name) ? "number" : ""}`, scope: "col" }, name)));
  const rows = calls.map((call) => {
    const took = call[UNTIL] === null ? "…" : milliseconds((call[UNTIL] - call[FROM]) * 1000);
    const cells = [call[CLIENT], call[KIND], `${call[FROM].toFixed(3)} s`, took, [make("span", { class: `dot ${call[ENDING]}` }), call[ENDING]], told(call)];
    return make("tr", {}, cells.map((cell, number) => make("td", { class: `${number === 2 || number === 3 ? "number" : ""} ${cell === "" ? "empty" : ""}`, "data-label": columns[number] }, make("span", {}, cell))));
  });
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The calls as a table" }, make("table", { class: "cards" }, make("thead", {}, headings), make("tbody", {}, rows)));
}

// From the document in the page to what is seen: what costs time is done when somebody comes near it.

function showNumbers(report) {
  const place = find(".numbers");
  place.addEventListener("toggle", () => {
    if (!place.open || place.querySelector("table")) return;
    const columns = ["second", "returned", "failed", "unknown", "p50", "p99", "max"];
    const headings = make("tr", {}, columns.map((name) => make("th", { class: "plain number", scope: "col" }, name)));
    const rows = report.calls.map((each) => {
      const waits = ["p50_ms", "p99_ms", "max_ms"].map((name) => (each.returned ? milliseconds(each[name]) : ""));
      return make("tr", {}, [each.at_s, each.returned, each.failed, each.unknown, ...waits].map((cell) => make("td", { class: "number" }, String(cell))));
    });
    place.append(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Calls by second" }, make("table", {}, make("thead", {}, headings), make("tbody", {}, rows))));
  });
}

function start() {
  const report = JSON.parse(find("#document").textContent);
  find("#main").hidden = false;
  showVerdicts(report);
  showDrills(report);
  showAbout(report);
  showLogs(report);
  if (report.strikes.length || report.calls.length || report.leaders.length) {
    find("#timeline").hidden = false;
    view.start(report);
    startTools(report);
    timeline.start(report);
    startOverview(report);
    showNumbers(report);
  }
  strikesTable.start(report);
  histories.start(report);
}

start();

// Verdicts, drills, what is to be known of the run, and the logs: what is read rather than looked at.

const SIGNS = { held: "✓", passed: "✓", broken: "✗", failed: "✗", "left out": "–" };
const LOOKS = { held: "held", passed: "held", broken: "broken", failed: "broken", "left out": "apart" };
const FEW = 12; // sentences shown at once

const lookOf = (word) => LOOKS[word] ?? "undecided";

function showVerdicts(report) {
  const order = ["broken", "undecided", "held"];
  const verdicts = report.verdicts.toSorted((a, b) => order.indexOf(lookOf(a.verdict)) - order.indexOf(lookOf(b.verdict)));
  find("#verdicts").hidden = verdicts.length === 0 && report.drills.length > 0;
  find(".verdicts").append(...verdicts.map((each) => verdictCard(each, report)));
  if (!verdicts.length) find("#verdicts").append(make("p", { class: "quiet" }, "No promise was looked at."));
}

function card(word, name, ...rest) {
  return make(
    "li",
    { class: `verdict ${lookOf(word)}` },
    make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[word] ?? "?"),
    make("h3", {}, name, make("span", { class: "word" }, word)),
    ...rest,
  );
}

function verdictCard(verdict, report) {
  return card(
    verdict.verdict,
    verdict.name,
    make("p", { class: "promise" }, verdict.promise),
    make("p", { class: "looked" }, verdict.looked_at ? `Looked at: ${verdict.looked_at}` : "Nothing was looked at."),
    sentences(verdict.wrong, report),
    sentences(verdict.undecided, report),
  );
}

function sentences(texts, report) {
  if (!texts.length) return null;
  const list = make("ul", { class: "sentences" });
  const show = (some) => list.append(...some.map((text) => make("li", {}, ...withLinks(text, report))));
  show(texts.slice(0, FEW));
  const more = texts.length - FEW;
  if (more > 0) {
    const rest = make("button", { type: "button", click: () => { rest.remove(); show(texts.slice(FEW)); } }, `Show ${more} more`);
    return make("div", {}, list, make("p", { class: "looked" }, rest));
  }
  return list;
}

// The text with every submission id whose history is here made a way to it.
function withLinks(text, report) {
  return text
    .split(/([^\s,;:()]+)/)
    .map((word) => (Object.hasOwn(report.histories, word) ? make("button", { type: "button", class: "link", click: () => histories.open(word) }, word) : word));
}

function showDrills(report) {
  const order = ["broken", "undecided", "held", "apart"];
  const drills = report.drills.toSorted((a, b) => order.indexOf(lookOf(a.verdict)) - order.indexOf(lookOf(b.verdict)));
  find("#drills").hidden = drills.length === 0;
  find(".drills").append(...drills.map(drillCard));
}

function drillCard(drill) {
  const failed = lookOf(drill.verdict) === "broken";
  const took = drill.seconds ? ` · ${seconds(drill.seconds)}` : "";
  return card(
    drill.verdict,
    drill.name,
    make("p", { class: "promise" }, `Elsewhere: ${drill.happened}`),
    make("p", { class: "looked" }, `Expected: ${drill.expects}${took}`),
    drill.why ? make("ul", { class: "sentences" }, make("li", {}, drill.why)) : null,
    drill.evidence.length
      ? make("details", { open: failed }, make("summary", {}, `Evidence: ${counted(drill.evidence.length, "line")}`), make("ol", { class: "evidence" }, drill.evidence.map((line) => make("li", {}, line))))
      : null,
    ...logDetails(drill.logs),
  );
}

function showAbout(report) {
  const head = report.head;
  find("#repeat code").textContent = head.command;
  find("#repeat button").addEventListener("click", () => copy(head.command));
  const facts = [
    ["Seed", String(head.seed)],
    ["Began", new Date(head.began_ms).toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC")],
    ["Took", seconds(head.seconds)],
    ["Host", head.host],
    ...(head.cluster ? [["Cluster", `${head.cluster.name} (${head.cluster.kind})`], ["Managers", head.cluster.managers.join(", ")], ["Agents", head.cluster.agents.join(", ")]] : []),
    ...Object.entries(head.versions),
  ];
  find(".facts").append(...facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  if (report.totals.length) find(".totals").append(make("h3", {}, "Calls"), totalsTable(report.totals));
  for (const [name, lines] of [["Left out, and why", head.left_out], ["Notes", head.notes]]) {
    if (lines.length) find(".lists").append(make("h3", {}, name), make("ul", {}, lines.map((line) => make("li", {}, line))));
  }
}

function totalsTable(totals) {
  const columns = ["returned", "failed", "unknown"];
  const headings = make("tr", {}, make("th", { class: "plain", scope: "col" }, "kind"), columns.map((name) => make("th", { class: "plain number", scope: "col" }, name)));
  const rows = totals.map((each) => make("tr", {}, make("th", { class: "plain", scope: "row" }, each.kind), columns.map((name) => make("td", { class: "number" }, each[name].toLocaleString("en")))));
  return make("table", {}, make("thead", {}, headings), make("tbody", {}, rows));
}

async function copy(text) {
  const told = find("#repeat p");
  try {
    await navigator.clipboard.writeText(text);
    told.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(find("#repeat code"));
    told.textContent = "Selected: copy it with the keyboard.";
  }
}

function logDetails(logs) {
  return Object.entries(logs).map(([name, text]) => {
    const place = make("pre", { tabindex: "0", "aria-label": `Log of ${name}` });
    return make("details", { toggle: () => (place.textContent = text) }, make("summary", {}, `Log of ${name}`), place);
  });
}

function showLogs(report) {
  const details = logDetails(report.logs);
  find("#logs").hidden = details.length === 0;
  find("#logs").append(...details);
}

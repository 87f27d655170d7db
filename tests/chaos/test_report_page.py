"""The page of a report, in a real browser: Debian's chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sample_run
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from chaos.record import Phase, Struck
from chaos.report import build, files, page
from chaos.report.document import Call, ClusterPart, Document, Gap, Totals, Verdict

EVIL = '</script ></script><!--<script>window.owned = 1</script>"\'><img src=x onerror="window.owned = 1"> &amp; \u2028'

PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to work for root, which CI is. The pages are our own.
        found = shutil.which("chromium")
        assert found, "scripts/packages installs chromium"
        flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def document() -> Document:
    run = sample_run.record(seed=4, seconds=60, strikes=40)
    return build.build(run, sample_run.verdicts(run), sample_run.head(), sample_run.logs())


class Pages:
    """Opens documents. What a page complains of, and what it asks the network for, fails the test."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser = browser
        self._folder = folder
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._contexts: list[Any] = []

    def open(self, document: Document, *, width: int = 1280, **options: Any) -> Page:
        path = files.write(document, self._folder / str(len(self._contexts)))[1]
        context = self._browser.new_context(
            viewport={"width": width, "height": 900}, reduced_motion="reduce", **options
        )
        self._contexts.append(context)
        opened = context.new_page()
        opened.set_default_timeout(PATIENCE_MS)
        opened.on("console", lambda message: self.complaints.append(message.text))
        opened.on("pageerror", lambda error: self.complaints.append(str(error)))
        opened.on("request", lambda request: self.requests.append(request.url))
        opened.goto(path.as_uri())
        return opened

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def pages(browser: Browser, tmp_path: Path) -> Iterator[Pages]:
    pages = Pages(browser, tmp_path)
    yield pages
    pages.close()
    assert not pages.complaints
    assert all(url.startswith("file:") for url in pages.requests) and len(pages.requests) >= 1


def shown(opened: Page) -> str:
    return opened.locator(".tools output").inner_text()


def timeline(opened: Page) -> Locator:
    return opened.locator(".chart svg")


# --- verdicts ---


def test_verdicts_come_first_the_worst_at_their_head_each_with_sign_word_and_sentences(
    pages: Pages, document: Document
) -> None:
    opened = pages.open(document)
    expect(opened.get_by_role("heading", level=1)).to_have_text("2 promises are broken")
    expect(opened.get_by_role("heading", level=2).first).to_have_text("Verdicts")
    cards = opened.locator("#verdicts .verdict")
    words = cards.locator(".word").all_inner_texts()
    assert words == ["broken", "broken", "undecided", *["held"] * 7]
    assert cards.locator(".sign").all_inner_texts() == ["✗", "✗", "?", *["✓"] * 7]
    expect(cards.first).to_contain_text("was acknowledged as job 4 and is lost")
    expect(cards.first).to_contain_text("Looked at: 3,390 acknowledged submissions")
    assert opened.title().startswith("✗ 2 promises are broken")


def test_an_open_verdict_looks_neither_held_nor_broken_and_no_verdict_looks_like_none_of_them(
    pages: Pages, document: Document
) -> None:
    def look(verdicts: list[Verdict]) -> tuple[str, ...]:
        opened = pages.open(msgspec.structs.replace(document, verdicts=verdicts))
        style = (
            "e => { const s = getComputedStyle(e); return [s.color, s.backgroundColor, s.borderTopStyle].join(' ') }"
        )
        sign = opened.locator(".banner .sign")
        return sign.inner_text(), sign.evaluate(style), opened.locator(".banner").evaluate(style)

    of = {each.verdict: each for each in document.verdicts}
    looks = [look(verdicts) for verdicts in ([of["held"]], [of["broken"]], [of["held"], of["undecided"]], [])]
    assert [look[0] for look in looks] == ["✓", "✗", "?", "–"]
    for part in (1, 2):
        assert len({look[part] for look in looks}) == 4, looks
    green = looks[0][1].split(" none")[0]
    assert all(green not in look[1] for look in looks[1:])


def test_a_sentence_leads_to_the_history_that_it_speaks_of(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    key = document.suspects[0]
    opened.locator("#verdicts").get_by_role("button", name=key).click()
    item = opened.locator("#histories details").first
    assert item.get_attribute("open") is not None
    expect(item.locator("summary")).to_contain_text(key)
    expect(item.locator("summary")).to_contain_text("a verdict speaks of it")
    expect(item.locator("summary")).to_be_focused()
    expect(item.locator("svg rect.returned").first).to_be_visible()
    rows = item.locator("tbody tr").all_inner_texts()
    assert len(rows) == len(document.histories[key])
    assert "submit" in rows[0] and document.histories[key][0].result in rows[0]


def test_drills_are_cards_with_their_evidence(pages: Pages) -> None:
    opened = pages.open(build.build_drills(sample_run.drills(), sample_run.head(kind="drills", cluster=None)))
    expect(opened.get_by_role("heading", level=1)).to_have_text("1 drill failed")
    cards = opened.locator("#drills .verdict")
    assert cards.locator(".word").all_inner_texts() == ["failed", "passed", "left out"]
    expect(cards.nth(0)).to_contain_text("expected: both slots are free; seen: 1 of 2")
    expect(cards.nth(0).get_by_text("n1 was killed")).to_be_visible()
    expect(cards.nth(1).get_by_text("m2 was killed")).to_be_hidden()
    cards.nth(1).get_by_text("Evidence: 3 lines").click()
    expect(cards.nth(1).get_by_text("m2 was killed")).to_be_visible()
    expect(opened.locator("#timeline")).to_be_hidden()


# --- the timeline ---


def test_strikes_leaders_calls_and_latencies_share_one_axis(pages: Pages, document: Document) -> None:
    svg = timeline(pages.open(document))
    assert svg.locator(".strike").count() == 40
    assert svg.locator("rect.lead:not(.key *)").count() == len(document.leaders)
    for part in ("path.returned", "path.failed", "path.p50", "path.p99", "path.max"):
        assert svg.locator(part).count() == 1, part
    x = {name: (box := svg.locator(name).bounding_box()) and box["x"] for name in ("path.returned", "path.p50")}
    assert abs(x["path.returned"] - x["path.p50"]) < 12, "a second stands at one place in both"


def test_the_keyboard_zooms_moves_and_reads(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    whole = shown(opened)
    timeline(opened).focus()
    opened.keyboard.press("+")
    opened.keyboard.press("+")
    expect(opened.locator(".tools output")).not_to_have_text(whole)
    expect(timeline(opened)).to_be_focused()
    near = shown(opened)
    opened.keyboard.press("Shift+ArrowRight")
    expect(opened.locator(".tools output")).not_to_have_text(near)
    opened.keyboard.press("ArrowRight")
    told = opened.locator("#timeline [aria-live]")
    expect(told).to_contain_text("returned")
    first = told.inner_text()
    assert "leads" in first or "nobody is known to lead" in first
    opened.keyboard.press("ArrowRight")
    expect(told).not_to_have_text(first)
    opened.keyboard.press("0")
    expect(opened.locator(".tools output")).to_have_text(whole)


def test_the_mouse_zooms_to_what_it_drags_over_and_a_double_click_shows_all(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    whole = shown(opened)
    timeline(opened).scroll_into_view_if_needed()
    box = opened.locator("path.p50").bounding_box()
    assert box
    opened.mouse.move(box["x"] + 100, box["y"] + 10)
    opened.mouse.down()
    opened.mouse.move(box["x"] + 300, box["y"] + 20, steps=4)
    opened.mouse.up()
    expect(opened.locator(".tools output")).not_to_have_text(whole)
    timeline(opened).dblclick(position={"x": 400, "y": 30})
    expect(opened.locator(".tools output")).to_have_text(whole)


def test_the_window_of_the_overview_is_moved_by_keys_and_says_where_it_is(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    begin = opened.get_by_role("slider", name="Begin of the window")
    begin.focus()
    for _ in range(3):
        opened.keyboard.press("ArrowRight")
    expect(begin).not_to_have_attribute("aria-valuenow", "0")
    expect(begin).to_be_focused()
    end = opened.get_by_role("slider", name="End of the window")
    assert end.get_attribute("aria-valuenow") == end.get_attribute("aria-valuemax")


def test_tab_leads_to_the_strikes_arrows_along_them_and_enter_into_one(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    whole = shown(opened)
    timeline(opened).focus()
    opened.keyboard.press("Tab")
    focused = opened.locator(".chart .strike:focus")
    expect(focused).to_have_attribute("data-number", "0")
    opened.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("data-number", "1")
    second = document.strikes[1]
    expect(opened.locator(".tip")).to_contain_text(second.nemesis)
    for each in (*second.targets, *second.notes):
        expect(opened.locator(".tip")).to_contain_text(each)
    opened.keyboard.press("Enter")
    expect(opened.locator(".tools output")).not_to_have_text(whole)
    expect(focused).to_have_attribute("data-number", "1")


def test_a_time_without_accepted_submissions_is_shaded_and_led_to(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    long = [gap for gap in document.gaps if gap.until_s - gap.from_s >= 1]
    assert opened.locator(".chart rect.gap").count() == len(long) > 0
    whole = shown(opened)
    opened.locator(".gaps button").first.click()
    expect(opened.locator(".tools output")).not_to_have_text(whole)


def test_the_numbers_behind_the_curves_can_be_read(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    opened.get_by_text("The same as numbers").click()
    rows = opened.locator(".numbers tbody tr")
    expect(rows).to_have_count(len(document.calls))
    bucket = document.calls[5]
    assert rows.nth(5).locator("td").all_inner_texts()[:4] == [
        str(each) for each in (bucket.at_s, bucket.returned, bucket.failed, bucket.unknown)
    ]


# --- tables and histories ---


def test_strikes_are_sorted_and_filtered(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    opened.locator("#strikes").scroll_into_view_if_needed()
    rows = opened.locator("#strikes tbody tr")
    expect(rows).to_have_count(40)
    opened.get_by_role("button", name="nemesis", exact=True).click()
    names = opened.locator("#strikes td[data-label=nemesis]").all_inner_texts()
    assert names == sorted(names)
    expect(opened.locator("#strikes th[data-column=nemesis]")).to_have_attribute("aria-sort", "ascending")
    opened.keyboard.press("Enter")
    assert opened.locator("#strikes td[data-label=nemesis]").all_inner_texts() == names[::-1]
    opened.get_by_role("combobox", name="Family").select_option("network")
    expect(rows).to_have_count(sum(each.family == "network" for each in document.strikes))
    opened.locator("#strike-words").fill("no such strike")
    expect(opened.locator("#strikes .count")).to_have_text("0 of 40 strikes")


def test_a_strike_of_the_table_is_shown_on_the_timeline_and_back(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    opened.locator("#strikes").scroll_into_view_if_needed()
    whole = shown(opened)
    opened.locator("#strikes tbody button").nth(7).click()
    expect(opened.locator(".tools output")).not_to_have_text(whole)
    focused = opened.locator(".chart .strike:focus")
    expect(focused).to_have_attribute("data-number", "7")
    focused.click()
    expect(opened.locator("#strikes tr.marked")).to_have_attribute("data-number", str(document.strikes[7].number))


def test_a_history_is_found_by_its_submission_id_its_job_or_its_end(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    found = opened.locator("#histories .list details")
    key = list(document.histories)[20]
    opened.locator("#history-words").fill(key)
    expect(found.first).to_have_attribute("data-key", key)
    job = next(each.result for each in document.histories[key] if each.result.startswith("job ")).split(":")[0]
    opened.locator("#history-words").fill(job)
    expect(found).to_have_count(1)
    expect(found.first).to_have_attribute("data-key", key)
    opened.locator("#history-words").fill("")
    opened.get_by_role("combobox", name="Show").select_option("doubtful")
    doubtful = [key for key, calls in document.histories.items() if any(call.ending == "unknown" for call in calls)]
    expect(opened.locator("#histories .count")).to_contain_text(f"{len(doubtful)} of {len(document.histories)}")


def test_ten_thousand_histories_are_drawn_only_where_somebody_looks(pages: Pages, document: Document) -> None:
    call = Call(client="c1", kind="submit", from_s=1.0, until_s=1.1, ending="returned", result="job 1")
    many = {f"id-{number}": [call] * 4 for number in range(10_000)}
    opened = pages.open(msgspec.structs.replace(document, histories=many, suspects=[]))
    assert opened.locator("#histories details").count() == 0
    opened.locator("#histories").scroll_into_view_if_needed()
    expect(opened.locator("#histories details")).to_have_count(40)
    assert opened.locator("#histories svg").count() == 0
    opened.get_by_role("button", name="Show more").click()
    expect(opened.locator("#histories details")).to_have_count(80)
    opened.locator("#history-words").fill("id-9999")
    expect(opened.locator("#histories .count")).to_have_text("1 of 10,000 histories")


# --- the head ---


def test_the_command_is_copied(pages: Pages, document: Document) -> None:
    opened = pages.open(document, permissions=["clipboard-read", "clipboard-write"])
    opened.get_by_role("button", name="Copy").click()
    expect(opened.locator("#repeat p")).to_have_text("Copied.")
    assert opened.evaluate("navigator.clipboard.readText()") == document.head.command


def test_the_head_and_the_collapsed_logs_are_there(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    about = opened.locator("#about").inner_text()
    for told in ("20417", "0.3.17", "2 cores", "chaos-20417", *document.head.left_out, *document.head.notes):
        assert told in about
    log = opened.locator("#logs details").filter(has_text="Log of m2")
    expect(log.locator("pre")).to_be_hidden()
    log.locator("summary").click()
    expect(log.locator("pre")).to_contain_text("became follower term=59")


# --- for everybody, and against hostile words ---


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(scheme: str, pages: Pages, document: Document) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1."""
    drills = msgspec.structs.replace(document, drills=sample_run.drills())
    opened = pages.open(drills, color_scheme=scheme)
    for place in ("#strikes", "#histories"):
        opened.locator(place).scroll_into_view_if_needed()
        expect(opened.locator(f"{place} .count")).not_to_be_empty()
    opened.locator("#histories summary").first.click()
    assert opened.evaluate(POOR_CONTRAST) == []


POOR_CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    const colour = rgb(getComputedStyle(element).backgroundColor);
    return colour.length < 4 || colour[3] > 0 ? colour : ground(element.parentElement);
  };
  const texts = [...document.querySelectorAll("body *:not(script, noscript, style, svg, svg *)")].filter(
    (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && each.checkVisibility());
  const poor = texts.flatMap((each) => {
    const [a, b] = [light(rgb(getComputedStyle(each).color)), light(ground(each))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    return contrast < 4.5 ? [`${each.outerHTML.slice(0, 80)}: ${contrast.toFixed(2)}`] : [];
  });
  return texts.length > 100 ? poor : ["hardly any text was looked at"];
}"""

NAMELESS = """() => [...document.querySelectorAll(
    "button, input, select, [role=button], [role=slider], [role=region], svg[role]")]
  .filter((each) => !(each.tagName === "BUTTON" && each.textContent.trim()) && !each.ariaLabel && !each.labels?.length)
  .map((each) => each.outerHTML)"""


def test_every_control_has_a_name(pages: Pages, document: Document) -> None:
    opened = pages.open(document)
    opened.locator("#strikes").scroll_into_view_if_needed()
    assert opened.evaluate(NAMELESS) == []


@pytest.mark.parametrize("width", [390, 768])
def test_nothing_sticks_out_on_a_narrow_screen(width: int, pages: Pages, document: Document) -> None:
    long = "x" * 300
    cluster = ClusterPart(name=long, kind="own", managers=["m1"], agents=[long])
    wide = msgspec.structs.replace(
        document,
        drills=sample_run.drills(),
        head=sample_run.head(command=long, notes=[long], host=long, cluster=cluster),
    )
    opened = pages.open(wide, width=width)
    opened.locator("#strikes").scroll_into_view_if_needed()
    opened.locator("#histories").scroll_into_view_if_needed()
    opened.locator("#histories summary").first.click()
    expect(opened.locator("#histories svg").first).to_be_visible()
    assert opened.evaluate("document.documentElement.scrollWidth") == width


def test_without_scripts_the_report_is_there_as_text(pages: Pages, document: Document) -> None:
    opened = pages.open(document, java_script_enabled=False)
    expect(opened.get_by_role("heading", level=1)).to_have_text("2 promises are broken")
    expect(opened.locator("noscript pre")).to_contain_text("✗ durability")
    expect(opened.locator("#main")).to_be_hidden()


def test_on_paper_there_is_what_was_never_scrolled_to(pages: Pages, document: Document) -> None:
    opened = pages.open(document, color_scheme="dark")
    opened.pdf()
    opened.emulate_media(media="print")
    assert opened.locator("#strikes tbody tr").count() == 40
    expect(opened.locator(".tools")).to_be_hidden()
    assert opened.locator("body").evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"


def test_hostile_words_are_only_words(pages: Pages) -> None:
    evil = Document(
        head=sample_run.head(command=EVIL, host=EVIL, left_out=[EVIL], notes=[EVIL], versions={EVIL: EVIL}),
        verdicts=[Verdict(name=EVIL, promise=EVIL, verdict="broken", looked_at=EVIL, wrong=[EVIL], undecided=[EVIL])],
        phases=[Phase(name=EVIL, from_s=0, until_s=9)],
        strikes=[
            Struck(number=1, nemesis=EVIL, family=EVIL, at_s=1, until_s=2, targets=[EVIL], outcome=EVIL, notes=[EVIL])
        ],
        gaps=[Gap(from_s=1, until_s=3, during=[EVIL])],
        totals=[Totals(kind=EVIL, returned=1, failed=0, unknown=0)],
        suspects=["__proto__"],
        histories={
            key: [Call(client=EVIL, kind=EVIL, from_s=1, until_s=None, ending=EVIL, result=EVIL)]
            for key in (EVIL, "__proto__")
        },
        drills=[
            msgspec.structs.replace(each, name=EVIL, why=EVIL, evidence=[EVIL], logs={EVIL: EVIL})
            for each in sample_run.drills()
        ],
        logs={EVIL: EVIL},
    )
    opened = pages.open(evil)
    opened.locator("#strikes").scroll_into_view_if_needed()
    opened.locator("#histories").scroll_into_view_if_needed()
    for each in opened.locator("main summary").all():
        each.click()
    expect(opened.locator("#verdicts h3")).to_contain_text(EVIL.partition(" \u2028")[0])
    expect(opened.locator("#histories .list details")).to_have_count(2)
    assert opened.evaluate("window.owned") is None
    assert opened.locator("img").count() == 0
    assert opened.locator("script").count() == 2


def test_markup_that_slipped_in_could_do_nothing(pages: Pages, document: Document) -> None:
    """The content security policy, which is the second line of defence, holds by itself."""
    opened = pages.open(document)
    opened.evaluate(
        """async () => {
          const script = document.createElement("script");
          script.textContent = "window.owned = 1";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<img src=data:, onerror='window.owned = 2'>");
          await new Promise((done) => document.images[0].addEventListener("error", done));
        }"""
    )
    assert opened.evaluate("fetch('data:,x').then(() => 'fetched', () => 'refused')") == "refused"
    assert opened.evaluate("window.owned") is None
    refused = [each for each in pages.complaints if "Content Security Policy" in each]
    assert len(refused) >= 3, pages.complaints
    pages.complaints.clear()


def test_the_page_is_made_of_nothing_but_the_document() -> None:
    made = page.render(Document(head=sample_run.head()))
    assert made == page.render(Document(head=sample_run.head()))
    assert "http://" not in made.replace("http://www.w3.org/2000/svg", "") and "https://" not in made

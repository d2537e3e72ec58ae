"""The page in a real browser; skipped without Chromium."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from inandout.data.images import ImageArray, write_image
from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.review.app import PromptLabPage, build_app
from inandout.review.base_preview import BasePreview
from inandout.review.decisions import DecisionLog
from inandout.review.gallery import write_gallery
from inandout.review.prompt_lab import GenerationRequest, PromptLab
from inandout.review.server import serve_in_thread
from inandout.review.session import ReviewSession, build_label_session
from tests.review.browsing import ERRORS, enter, needs_chromium, press, until
from tests.review.sessions import ODD, noise, small_session, write_pool, write_real

pytestmark = [pytest.mark.slow, needs_chromium, pytest.mark.usefixtures("no_page_breaks")]


def serving(
    session: ReviewSession, log: Path, port: int = 0, lab_page: PromptLabPage | None = None
) -> AbstractContextManager[str]:  # fmt: skip
    """Serve the page in a thread and yield its address."""
    return serve_in_thread(build_app(session, DecisionLog(log), lambda: "in run 0123", lab_page), port)


def saved(log: Path, n: int) -> list[tuple[str, str, str]]:
    """Wait until `n` decisions are on disk and return them."""
    deadline = time.monotonic() + 30
    while len(decisions := DecisionLog(log).read()) < n:
        assert time.monotonic() < deadline, decisions
        time.sleep(0.05)
    return [(decision.reviewer, decision.decision, decision.reason) for decision in decisions]


def test_a_pool_is_certified_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    session, log, own = small_session(tmp_path), tmp_path / "decisions.jsonl", "<b>'my own'</b> 😀"
    with serving(session, log) as address:
        page = enter(browser, address, "Anna")
        press(page, "k", "2", "u", "Enter", "r", "t")
        page.keyboard.type(own)
        press(page, "Enter", "r", "k", "k")
        assert saved(log, 7) == [
            ("Anna", "keep", ""), ("Anna", "reject", "does not look real"), ("Anna", "unsure", ""),
            ("Anna", "reject", ""), ("Anna", "reject", own), ("Anna", "keep", ""), ("Anna", "keep", ""),
        ]  # fmt: skip
        page.wait_for_selector("text=all 7 decided: press Finish")
        press(page, "z", "z")
        saved(log, 9)
        page.wait_for_selector("text=5 of 7 decided by you")
        assert page.text_content("#where") == "image 6 of 7"
        page.click("#finish")
        page.wait_for_selector("#finish-dialog[open]")
        assert page.text_content("#finish-text") == "in run 0123"


def test_unusual_texts_are_shown_as_plain_text(browser: Browser, tmp_path: Path) -> None:
    with serving(small_session(tmp_path), tmp_path / "d.jsonl") as address:
        page = enter(browser, address, "<img src=x onerror=alert(1)>")
        press(page, "Home", "Enter")
        for prompt in ODD:
            assert page.text_content("#facts dd") == prompt
            press(page, "ArrowRight")
        assert page.title() == "Review: pool <i>one</i>"
        assert page.text_content("#who") == "☺ <img src=x onerror=alert(1)>"
        assert page.locator("#title i, #who img, #facts b, #facts script").count() == 0


def test_unusual_names_and_reasons_of_others_are_shown_as_plain_text(browser: Browser, tmp_path: Path) -> None:
    session, log = small_session(tmp_path), DecisionLog(tmp_path / "d.jsonl")
    for image, text in zip(session.ids, ODD, strict=False):
        log.decide(image, "reject", text, f"{text[:290]} (name)", 0)
    with serving(session, tmp_path / "d.jsonl") as address:
        page = enter(browser, address, "Anna")
        press(page, "Home", "Enter")
        for place, text in enumerate(ODD):
            press(page, "k", "ArrowLeft")
            until(page, f"document.querySelectorAll('#facts dt').length > 4 && current === {place}")
            assert page.locator("#facts dt").last.text_content() == f"{text[:290]} (name)"
            assert page.locator("#facts dd").last.text_content() == f"reject, “{text}”"
            press(page, "ArrowRight")
        assert page.title() == "Review: pool <i>one</i>"
        assert page.locator("#facts b, #facts script, #agreement b, #agreement script, #names script").count() == 0


def test_reviewers_see_their_agreement_and_decisions_of_others_only_after_their_own(
    browser: Browser, tmp_path: Path
) -> None:
    log = tmp_path / "d.jsonl"
    with serving(small_session(tmp_path), log) as address:
        anna, ben = enter(browser, address, "Anna"), enter(browser, address, "Ben")
        press(anna, "k", "r", "k")
        saved(log, 3)
        ben.wait_for_timeout(3500)
        press(ben, "Home", "Enter")
        assert "Anna" not in (ben.text_content("#facts") or "")
        press(ben, "k", "k", "ArrowLeft")
        ben.wait_for_selector("text=Anna and Ben agree on 1 of 2, κ 0.00")
        assert "Annareject" in (ben.text_content("#facts") or "")
        ben.select_option("#by-decision", "differ")
        assert ben.text_content("#shown") == "1 of 7 shown"


def test_reloads_and_server_crashes_lose_nothing_and_errors_are_shown(browser: Browser, tmp_path: Path) -> None:
    session, log = small_session(tmp_path), tmp_path / "d.jsonl"
    with serving(session, log) as address:
        page = enter(browser, address, "Anna")
        press(page, "k", "r")
        saved(log, 2)
        page.reload()
        page.wait_for_selector("text=2 of 7 decided by you")
    press(page, "n", "k")
    page.wait_for_selector("#trouble:has-text('nothing is saved now')")
    kept = "queue.then(() => document.querySelectorAll('.card.keep').length)"
    assert page.evaluate(kept) == 1, "an unsaved decision is not shown as kept"
    with serving(session, log, int(address.rsplit(":", 1)[1].strip("/"))):
        page.wait_for_selector("#trouble", state="hidden")
        press(page, "k")
        assert len(saved(log, 3)) == 3


def test_a_second_tab_does_not_overwrite_the_first(browser: Browser, tmp_path: Path) -> None:
    log = tmp_path / "d.jsonl"
    with serving(small_session(tmp_path), log) as address:
        one, two = enter(browser, address, "Anna"), enter(browser, address, "Anna")
        two.evaluate("poll = async () => {}")  # a tab that has not received the update yet
        press(one, "r")
        saved(log, 1)
        press(two, "k")
        two.wait_for_selector("#trouble:has-text('in another tab')")
        assert saved(log, 1) == [("Anna", "reject", "")]


def test_filters_select_images(browser: Browser, tmp_path: Path) -> None:
    with serving(small_session(tmp_path), tmp_path / "d.jsonl") as address:
        page = enter(browser, address, "Anna")
        press(page, "k", "r")
        page.wait_for_selector("text=2 of 7 decided by you")
        for choice, number in (("keep", 1), ("reject", 1), ("none", 5), ("unsure", 0), ("", 7)):
            page.select_option("#by-decision", choice)
            assert page.locator("#grid .card").count() == number
        page.select_option("#by-prompt", "1")
        assert page.locator("#grid .card").count() == 1


def test_all_controls_are_reached_with_tab_and_the_focus_is_visible(browser: Browser, tmp_path: Path) -> None:
    with serving(small_session(tmp_path), tmp_path / "d.jsonl") as address:
        page = enter(browser, address, "Anna")
        press(page, "Enter")
        page.evaluate("document.activeElement.blur()")
        reached = set()
        for _ in range(30):
            press(page, "Tab")
            reached.add(page.evaluate("document.activeElement.id || document.activeElement.dataset.decision"))
            assert page.evaluate(FOCUS_IS_VISIBLE)
        assert {"finish", "who", "undo", "by-decision", "by-prompt", "by-flag"} <= reached
        assert {"keep", "reject", "unsure", "note", "previous", "zoom", "next"} <= reached
        assert page.evaluate("document.documentElement.scrollWidth") == 1280


def test_all_texts_have_the_contrast_of_wcag_aa_and_the_page_fits_1280_px(browser: Browser, tmp_path: Path) -> None:
    session = small_session(tmp_path)
    session.flags[1].append("far")
    with serving(session, tmp_path / "d.jsonl") as address:
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(address)
        page.wait_for_selector("#name-dialog[open]")
        assert page.evaluate(TOO_FAINT) == []
        page.keyboard.type("Anna")
        press(page, "Enter")
        page.wait_for_selector("#name-dialog", state="hidden")
        press(page, "k", "r", "u")
        page.wait_for_selector("text=3 of 7 decided by you")
        assert page.locator(".card .flags").count() == 1
        for keys in ((), ("Enter",), ("Home",), ("ArrowRight",), ("ArrowRight",)):
            press(page, *keys)
            assert page.evaluate(TOO_FAINT) == []
            assert page.evaluate("document.documentElement.scrollWidth") == 1280
        page.evaluate("trouble(new Error('some trouble'))")
        assert page.evaluate(TOO_FAINT) == []
        page.click("#finish")
        page.wait_for_selector("#finish-dialog[open]")
        assert page.evaluate(TOO_FAINT) == []


TOO_FAINT = """() => {
    const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
    const light = (colour) => numbers(colour).slice(0, 3).map((one) => one / 255)
        .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
        .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor, alpha = numbers(colour)[3];
            if (alpha === undefined || alpha === 1) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const open = document.querySelector("dialog[open]") || document.body;
    const faint = [];
    for (const element of open.querySelectorAll("*")) {
        const words = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
        if (!words.length && !element.placeholder || !element.checkVisibility()) continue;
        if (element.matches(":disabled, option")) continue;
        const style = getComputedStyle(element, element.placeholder ? "::placeholder" : null);
        const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
        const found = ratio(light(style.color), light(ground(element)));
        const name = `${element.tagName} ${element.id || element.className}`;
        if (found < (large ? 3 : 4.5)) faint.push(`${name}: ${found.toFixed(2)}`);
    }
    return faint;
}"""
"""Returns the elements whose text has too little contrast (WCAG 2.2, 1.4.3)."""


def test_the_contrast_is_computed_from_rendered_colours(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content("<p style='color:#777;background:#fff'>a</p><b style='color:#767676'>b</b><i>c</i>")
    assert page.evaluate(TOO_FAINT) == ["P : 4.48"]


def test_labels_of_real_images_are_judged_with_mask_and_classifier_score(browser: Browser, tmp_path: Path) -> None:
    rows = write_real(tmp_path / "real", 2, 2)
    write_image(tmp_path / "mask.png", noise(0)[:, :, 0] > 120)
    rows[0] = rows[0].with_(mask=tmp_path / "mask.png")
    session = build_label_session("labels 0123", rows, [0.1, 0.8, 0.9, 0.2])
    with serving(session, tmp_path / "d.jsonl") as address:
        page = enter(browser, address, "Anna")
        assert page.locator(".card .words").all_text_contents()[0] == "1. labelled defect, looks like a defect: 10 %"
        assert page.locator(".card .flags").count() == 2
        press(page, "Enter")
        assert page.text_content("#question") == "The label says “defect”. Is that right?"
        until(page, "document.getElementById('labelled').naturalWidth === 32")
        small = page.locator("#image").bounding_box()
        press(page, " ")
        until(page, "document.getElementById('image').naturalHeight > 0")
        zoomed = page.locator("#image").bounding_box()
        assert small is not None and zoomed is not None and zoomed["height"] > 2 * small["height"]
        press(page, " ")
        press(page, "r", "k", "1")
        page.wait_for_selector("text=3 of 4 decided by you")
        assert saved(tmp_path / "d.jsonl", 3)[2] == ("Anna", "reject", "a defect was overlooked")
        assert page.text_content("#question") == "The label says “good”. Is that right?"
        assert page.locator("#figure-labelled").is_hidden()
        press(page, "Escape")
        page.select_option("#by-prompt", label="good")
        assert page.locator(".card").count() == 2
        assert page.locator(".card .mark").all_text_contents() == ["✗ wrong"]
        assert page.evaluate(TOO_FAINT) == []


def test_a_diffusion_image_is_compared_with_the_same_seed_at_alpha_zero(browser: Browser, tmp_path: Path) -> None:
    go = threading.Event()

    def draw(row: Sample) -> ImageArray:
        go.wait()
        if row.seed == 1:
            raise InputError("the base has gone")
        return noise(500 + (row.seed or 0))

    session = replace(small_session(tmp_path), base_preview=BasePreview(tmp_path / "alpha-0", draw))
    with serving(session, tmp_path / "d.jsonl") as address:
        page = enter(browser, address, "Anna")
        press(page, "Enter")
        page.wait_for_selector("text=generating the same seed at alpha 0")
        assert page.locator("#figure-change").is_hidden()
        go.set()
        until(page, "document.getElementById('change').naturalWidth === 32")
        assert page.text_content("#source-words") == "the same seed at alpha 0"
        press(page, "ArrowRight")
        page.wait_for_selector("text=cannot be generated: the base has gone")
        press(page, "h", "s", "ArrowLeft")
        assert page.locator("#figure-change, #figure-source").evaluate_all("all => all.every((one) => one.hidden)")
        press(page, "End")
        assert page.text_content("#source-words") == "made from this good part"


FETCHED = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/small/')).length"
FOCUS_IS_VISIBLE = """document.activeElement === document.body
    || getComputedStyle(document.activeElement).outlineStyle !== 'none'"""


def test_prompts_are_generated_compared_and_chosen(browser: Browser, tmp_path: Path) -> None:
    def draw(request: GenerationRequest) -> Iterator[tuple[int, ImageArray]]:
        return ((n % len(request.prompts), noise(n)) for n in range(2 * request.number))

    lab = PromptLab(tmp_path / "lab", draw)
    start = GenerationRequest(prompts=["<b>scratched</b>"], alpha=0.6, guidance=3, number=2, seed=0)
    empty = ReviewSession("Prompt lab", [], [], [])
    with serving(empty, tmp_path / "d.jsonl", lab_page=PromptLabPage(lab, start)) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("pageerror", lambda error: ERRORS.append(str(error)))
        page.goto(address)
        page.wait_for_selector("text=No attempt yet")
        page.fill("#prompt-b", "cracked")
        page.keyboard.press("Enter")
        until(page, "document.querySelectorAll('#attempts img').length === 4")
        assert page.locator("#attempts b").all_text_contents() == ["<b>scratched</b>", "cracked"]
        page.locator("#attempts .line button").first.click()
        page.wait_for_selector("text=chosen, remove")
        assert page.text_content("#chosen code") == "--prompts '<b>scratched</b>'"
        page.fill("#prompt-a", "a|b")
        page.click("#make")
        page.wait_for_selector("#trouble:has-text('separates prompts')")
    assert lab.chosen() == ["<b>scratched</b>"]


def test_two_thousand_images_scroll_smoothly(browser: Browser, tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 40)
    rows = [rows[number % 40] for number in range(2000)]
    ids = [f"{number:032x}" for number in range(2000)]
    with serving(ReviewSession("large", rows, ids, [[] for _ in rows]), tmp_path / "d.jsonl") as address:
        page = enter(browser, address, "Anna")
        assert page.text_content("#shown") == "2000 of 2000 shown"
        fetched = page.evaluate(FETCHED)
        assert 0 < fetched < 500, "thumbnails are loaded lazily"
        milliseconds = busy(page, SCROLL) / 60
        print(f"main thread: {milliseconds:.1f} ms per frame")
        assert milliseconds < 17, "CPU time of the main thread, independent of other programs"
        press(page, "End")
        until(page, "document.activeElement.querySelector('img')?.naturalWidth > 0")
        assert (page.text_content(":focus") or "").startswith("2000. ")
        press(page, "Home", "ArrowDown", "ArrowRight")
        assert (page.text_content(":focus") or "").startswith("9. ")


def busy(page: Page, script: str) -> float:
    """Return the CPU time of the page's main thread, in milliseconds, while a script runs."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def thread_time() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "ThreadTime") * 1000

    before = thread_time()
    page.evaluate(script)
    return thread_time() - before


SCROLL = """async () => {
    for (let i = 0; i < 60; i++) {
        document.getElementById("grid").scrollTop += 100;  // 6000 px a second
        await new Promise(requestAnimationFrame);
    }
}"""


def test_the_gallery_is_navigated_with_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 20)
    write_gallery(tmp_path / "index.html", "a pool", tmp_path / "pool", rows, "pool")
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.on("pageerror", lambda error: ERRORS.append(str(error)))
    page.goto((tmp_path / "index.html").as_uri())
    press(page, "Tab", "ArrowRight", "ArrowDown", "Enter", "ArrowRight")
    assert (page.text_content("#caption") or "").startswith("9 of 20")
    until(page, "document.getElementById('whole').naturalWidth === 32")
    press(page, "Escape")
    until(page, "document.activeElement.tagName + current === 'FIGURE8'")  # the close event is asynchronous

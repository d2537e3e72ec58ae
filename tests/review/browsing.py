"""Helpers for tests that use the page in a real browser."""

import shutil
import time

import pytest
from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
ERRORS: list[str] = []
"""JavaScript errors, and requests to other servers; each fails the test."""


def enter(browser: Browser, address: str, name: str) -> Page:
    """Open the page in a new browser context and enter a name; JavaScript errors fail the test."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: ERRORS.append(str(error)))
    page.on("request", lambda request: ERRORS.extend([] if request.url.startswith(address) else [request.url]))
    page.goto(address)
    page.wait_for_selector("#name-dialog[open]")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#name-dialog", state="hidden")
    return page


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def until(page: Page, expression: str) -> None:
    """Wait until an expression is true; Playwright's `wait_for_function` needs `eval`, which the page forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)

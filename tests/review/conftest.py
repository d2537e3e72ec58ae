"""A browser shared by all tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.review.browsing import CHROMIUM, ERRORS


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def no_page_breaks() -> Iterator[None]:
    ERRORS.clear()
    yield
    assert ERRORS == []

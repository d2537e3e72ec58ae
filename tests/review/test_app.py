import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from inandout.data.images import read_image
from inandout.review.app import build_app
from inandout.review.decisions import DecisionLog
from inandout.review.guard import LARGEST_REQUEST, Guard, is_loopback
from inandout.review.session import ReviewSession
from tests.review.sessions import ODD, small_session

HERE = "http://127.0.0.1:8765"


class Page(NamedTuple):
    session: ReviewSession
    log: DecisionLog
    client: TestClient
    finished: list[str]

    def decide(
        self, place: int, decision: str = "keep", reviewer: str = "Anna", seen: int = 0, reason: str = ""
    ) -> int:  # fmt: skip
        said = {
            "image": self.session.ids[place],
            "decision": decision,
            "reviewer": reviewer,
            "seen": seen,
            "reason": reason,
        }
        return self.client.post("/api/decisions", json=said).status_code

    def updates(self, since: int = 0) -> Any:
        return self.client.get(f"/api/updates?since={since}").json()


@pytest.fixture
def page(tmp_path: Path) -> Page:
    session, log, finished = small_session(tmp_path), DecisionLog(tmp_path / "decisions.jsonl"), ["run 1"]
    app = build_app(session, log, lambda: finished[0])
    return Page(session, log, TestClient(Guard(app), base_url=HERE), finished)


def test_the_page_and_its_parts_come_from_this_server_alone(page: Page) -> None:
    whole = page.client.get("/")
    policy = whole.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    addresses = re.findall(r'(?:src|href)="([^"]*)"', whole.text)
    assert set(addresses) == {"/page/review.css"} | {
        f"/page/{name}.js" for name in ("words", "grid", "one", "review", "prompt_lab")
    }  # fmt: skip
    for address in addresses:
        part = page.client.get(address)
        assert part.status_code == 200
        assert "http://" not in part.text + whole.text
        assert "https://" not in part.text + whole.text


def test_the_desk_says_what_is_known_and_no_path(page: Page, tmp_path: Path) -> None:
    answer = page.client.get("/api/session")
    session = answer.json()
    assert [one["prompt"] for one in session["images"]] == [*ODD, ""]
    assert [one["has_source"] for one in session["images"]] == [False] * 6 + [True]
    assert (len(session["real_defects"]), len(session["real_good"])) == (6, 3)
    assert str(tmp_path) not in answer.text
    assert ".png" not in answer.text


def test_images_come_whole_and_small(page: Page) -> None:
    image, local = page.session.ids[0], page.session.ids[-1]
    whole = page.client.get(f"/whole/{image}")
    assert np.array_equal(decoded(whole.content), read_image(page.session.samples[0].image))
    assert "immutable" in whole.headers["cache-control"]
    assert page.client.get(f"/small/{image}").headers["content-type"] == "image/webp"
    assert page.client.get(f"/small/{next(iter(page.session.real))}").status_code == 200
    before = decoded(page.client.get(f"/source/{local}").content)
    assert np.array_equal(before, read_image(list(page.session.real.values())[-1].image))
    assert decoded(page.client.get(f"/change/{local}").content)[10:20, 8:18].min() > 0
    assert page.client.get(f"/change/{image}").status_code == 404


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)))


@pytest.mark.parametrize(
    "address",
    [
        "/whole/../manifest.csv", "/whole/..%2fmanifest.csv", "/whole/%2e%2e%2fmanifest.csv", "/whole//etc/passwd",
        "/page/..%2fapp.py", "/page/gallery.html", "/small/" + "0" * 32, "/whole/000000.png", "/docs", "/openapi.json",
    ],
)  # fmt: skip
def test_nothing_else_can_be_fetched(page: Page, address: str) -> None:
    assert page.client.get(address).status_code == 404


def test_a_real_image_is_not_reviewed_with_the_pool(page: Page) -> None:
    real = next(iter(page.session.real))
    said = {"image": real, "decision": "keep", "reviewer": "Anna", "seen": 0}
    assert page.client.post("/api/decisions", json=said).status_code == 404
    assert page.log.read() == []


def test_decisions_are_saved_at_once_and_told_to_others(page: Page) -> None:
    assert page.decide(0) == page.decide(1, "reject", reason="smeared") == 201
    assert len(page.log.path.read_text().splitlines()) == 2, "on the disk already"
    updates = page.updates()
    assert [(one["decision"], one["reason"], one["count"]) for one in updates["decisions"]] == [
        ("keep", "", 1),
        ("reject", "smeared", 1),
    ]
    assert updates["summary"]["reviewers"] == {"Anna": 2}
    page.decide(0, "keep", "Ben")
    page.decide(1, "keep", "Ben")
    more = page.updates(updates["next"])
    assert [one["reviewer"] for one in more["decisions"]] == ["Ben", "Ben"]
    (pair,) = more["summary"]["agreements"]
    assert (pair["reviewers"], pair["images"], pair["same"], pair["kappa"]) == (["Anna", "Ben"], 2, 1, 0.0)
    assert more["summary"]["together"] == {"keep": 1, "reject": 0, "unsure": 1}


def test_a_tab_that_is_behind_is_told_so(page: Page) -> None:
    assert [page.decide(0, "keep"), page.decide(0, "reject"), page.decide(0, "reject", seen=1)] == [201, 409, 201]
    assert [one.decision for one in page.log.read()] == ["keep", "reject"]


def test_undo_names_the_image(page: Page) -> None:
    page.decide(0)
    page.decide(1)
    answers = [page.client.post("/api/undo", json={"reviewer": "Anna"}).json()["image"] for _ in range(3)]
    assert answers == [page.session.ids[1], page.session.ids[0], ""]
    assert page.updates()["summary"]["reviewers"] == {}


def test_a_second_server_on_the_same_file_goes_on(page: Page) -> None:
    page.decide(0)
    again = TestClient(Guard(build_app(page.session, DecisionLog(page.log.path), lambda: "")), base_url=HERE)
    assert len(again.get("/api/updates").json()["decisions"]) == 1
    page.decide(1)
    assert len(again.get("/api/updates").json()["decisions"]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"reviewer": ""},
        {"reviewer": "\ud800"},
        {"reason": "x" * 301},
        {"decision": "perhaps"},
        {"seen": -1},
        {"more": 1},
    ],
)
def test_what_is_no_decision_is_answered_in_a_sentence(page: Page, changes: dict[str, object]) -> None:
    said = {"image": page.session.ids[0], "decision": "keep", "reviewer": "Anna", "seen": 0} | changes
    answer = page.client.post("/api/decisions", content=json.dumps(said), headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert next(iter(changes)) in answer.json()["error"]
    assert page.log.read() == []


def test_finish_can_be_pressed_again(page: Page) -> None:
    assert page.client.post("/api/finish").json() == {"message": "run 1"}
    page.finished[0] = "run 1 again"
    assert page.client.post("/api/finish").json() == {"message": "run 1 again"}


def test_requests_that_are_too_large_are_refused_with_the_limit(page: Page) -> None:
    answer = page.client.post("/api/decisions", content=b"x" * (LARGEST_REQUEST + 1))
    assert answer.status_code == 413
    assert str(LARGEST_REQUEST) in answer.text

    def endless() -> Iterator[bytes]:
        yield b"x"

    assert page.client.post("/api/decisions", content=endless()).status_code == 411


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "192.168.0.5", ""])
def test_without_a_token_only_names_of_this_machine_are_answered(page: Page, host: str) -> None:
    assert page.client.get("/api/session", headers={"host": host}).status_code == 403
    for mine in ("localhost:1", "127.0.0.1", "[::1]:8765"):
        assert page.client.get("/api/session", headers={"host": mine}).status_code == 200


def test_other_pages_cannot_decide(page: Page) -> None:
    said = {"image": page.session.ids[0], "decision": "keep", "reviewer": "Anna", "seen": 0}
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999"):
        assert page.client.post("/api/decisions", json=said, headers={"origin": origin}).status_code == 403
    as_text = {"content-type": "text/plain"}  # what another page may send without being asked
    assert page.client.post("/api/decisions", content=json.dumps(said), headers=as_text).status_code == 422
    assert page.log.read() == []
    assert page.client.post("/api/decisions", json=said, headers={"origin": HERE}).status_code == 201


def test_with_a_token_nothing_is_answered_without_it(page: Page) -> None:
    client = TestClient(Guard(build_app(page.session, page.log, str), "se-cret"), base_url="http://192.168.0.5:8765")
    for address in ("/", "/api/session", f"/whole/{page.session.ids[0]}", "/?token=wrong", "/?token="):
        assert client.get(address).status_code == 401
    assert client.post("/api/undo?token=se-cret", json={"reviewer": "A"}).status_code == 401
    assert client.get("/api/session", headers={"cookie": "inandout_review=wrong"}).status_code == 401
    first = client.get("/?token=se-cret", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert "HttpOnly" in first.headers["set-cookie"]
    assert client.get("/api/session").status_code == 200


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.5", "localhost.evil.example", ""]))

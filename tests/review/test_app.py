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
from inandout.review.guard import MAX_REQUEST_BYTES, Guard, is_loopback
from inandout.review.session import ReviewSession
from tests.review.sessions import ODD, small_session

HERE = "http://127.0.0.1:8765"


class Page(NamedTuple):
    session: ReviewSession
    log: DecisionLog
    client: TestClient
    finished: list[str]

    def decide(
        self, index: int, decision: str = "keep", reviewer: str = "Anna", seen: int = 0, reason: str = ""
    ) -> int:  # fmt: skip
        body = {
            "image": self.session.ids[index],
            "decision": decision,
            "reviewer": reviewer,
            "seen": seen,
            "reason": reason,
        }
        return self.client.post("/api/decisions", json=body).status_code

    def updates(self, since: int = 0) -> Any:
        return self.client.get(f"/api/updates?since={since}").json()


@pytest.fixture
def page(tmp_path: Path) -> Page:
    session, log, finished = small_session(tmp_path), DecisionLog(tmp_path / "decisions.jsonl"), ["run 1"]
    app = build_app(session, log, lambda: finished[0])
    return Page(session, log, TestClient(Guard(app), base_url=HERE, headers={"origin": HERE}), finished)


def test_the_page_loads_files_from_this_server_only(page: Page) -> None:
    html = page.client.get("/")
    policy = html.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html.text)
    assert set(addresses) == {"/page/review.css"} | {
        f"/page/{name}.js" for name in ("words", "grid", "one", "review", "prompt_lab")
    }  # fmt: skip
    for address in addresses:
        file = page.client.get(address)
        assert file.status_code == 200
        assert "http://" not in file.text + html.text
        assert "https://" not in file.text + html.text


def test_the_session_describes_the_images_without_paths(page: Page, tmp_path: Path) -> None:
    response = page.client.get("/api/session")
    session = response.json()
    assert [image["prompt"] for image in session["images"]] == [*ODD, ""]
    assert [image["has_source"] for image in session["images"]] == [False] * 6 + [True]
    assert (len(session["real_defects"]), len(session["real_good"])) == (6, 3)
    assert str(tmp_path) not in response.text
    assert ".png" not in response.text


def test_images_thumbnails_sources_and_differences_are_served(page: Page) -> None:
    image, local = page.session.ids[0], page.session.ids[-1]
    full_size = page.client.get(f"/whole/{image}")
    assert np.array_equal(decoded(full_size.content), read_image(page.session.samples[0].image))
    assert "immutable" in full_size.headers["cache-control"]
    assert page.client.get(f"/small/{image}").headers["content-type"] == "image/webp"
    assert page.client.get(f"/small/{next(iter(page.session.real))}").status_code == 200
    source = decoded(page.client.get(f"/source/{local}").content)
    assert np.array_equal(source, read_image(list(page.session.real.values())[-1].image))
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
def test_other_addresses_are_not_found(page: Page, address: str) -> None:
    assert page.client.get(address).status_code == 404


def test_real_reference_images_cannot_be_decided_on(page: Page) -> None:
    real = next(iter(page.session.real))
    decision = {"image": real, "decision": "keep", "reviewer": "Anna", "seen": 0}
    assert page.client.post("/api/decisions", json=decision).status_code == 404
    assert page.log.read() == []


def test_decisions_are_saved_at_once_and_sent_to_others(page: Page) -> None:
    assert page.decide(0) == page.decide(1, "reject", reason="smeared") == 201
    assert len(page.log.path.read_text().splitlines()) == 2, "already on disk"
    updates = page.updates()
    assert [(decision["decision"], decision["reason"], decision["count"]) for decision in updates["decisions"]] == [
        ("keep", "", 1),
        ("reject", "smeared", 1),
    ]
    assert updates["summary"]["reviewers"] == {"Anna": 2}
    page.decide(0, "keep", "Ben")
    page.decide(1, "keep", "Ben")
    more = page.updates(updates["next"])
    assert [decision["reviewer"] for decision in more["decisions"]] == ["Ben", "Ben"]
    (pair,) = more["summary"]["agreements"]
    assert (pair["reviewers"], pair["images"], pair["same"], pair["kappa"]) == (["Anna", "Ben"], 2, 1, 0.0)
    assert more["summary"]["together"] == {"keep": 1, "reject": 0, "unsure": 1}


def test_an_outdated_tab_gets_a_conflict(page: Page) -> None:
    assert [page.decide(0, "keep"), page.decide(0, "reject"), page.decide(0, "reject", seen=1)] == [201, 409, 201]
    assert [decision.decision for decision in page.log.read()] == ["keep", "reject"]


def test_undo_returns_the_image(page: Page) -> None:
    page.decide(0)
    page.decide(1)
    undone = [page.client.post("/api/undo", json={"reviewer": "Anna"}).json()["image"] for _ in range(3)]
    assert undone == [page.session.ids[1], page.session.ids[0], ""]
    assert page.updates()["summary"]["reviewers"] == {}


def test_a_second_server_continues_with_the_same_file(page: Page) -> None:
    page.decide(0)
    again = build_app(page.session, DecisionLog(page.log.path), lambda: "")
    second = TestClient(Guard(again), base_url=HERE, headers={"origin": HERE})
    assert len(second.get("/api/updates").json()["decisions"]) == 1
    page.decide(1)
    assert len(second.get("/api/updates").json()["decisions"]) == 2


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
def test_an_invalid_decision_is_refused_with_the_name_of_the_field(page: Page, changes: dict[str, object]) -> None:
    body = json.dumps({"image": page.session.ids[0], "decision": "keep", "reviewer": "Anna", "seen": 0} | changes)
    response = page.client.post("/api/decisions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert next(iter(changes)) in response.json()["error"]
    assert page.log.read() == []


def test_finish_can_be_repeated(page: Page) -> None:
    assert page.client.post("/api/finish").json() == {"message": "run 1"}
    page.finished[0] = "run 1 again"
    assert page.client.post("/api/finish").json() == {"message": "run 1 again"}


def test_requests_that_are_too_large_are_refused_with_the_limit(page: Page) -> None:
    response = page.client.post("/api/decisions", content=b"x" * (MAX_REQUEST_BYTES + 1))
    assert response.status_code == 413
    assert str(MAX_REQUEST_BYTES) in response.text

    def endless() -> Iterator[bytes]:
        yield b"x"

    assert page.client.post("/api/decisions", content=endless()).status_code == 411


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "192.168.0.5", ""])
def test_without_a_token_only_loopback_hosts_are_accepted(page: Page, host: str) -> None:
    assert page.client.get("/api/session", headers={"host": host}).status_code == 403
    for loopback in ("localhost:1", "127.0.0.1", "[::1]:8765"):
        assert (
            page.client.get("/api/session", headers={"host": loopback, "origin": f"http://{loopback}"}).status_code
            == 200
        )


def test_other_pages_cannot_decide(page: Page) -> None:
    decision = {"image": page.session.ids[0], "decision": "keep", "reviewer": "Anna", "seen": 0}
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9999"):
        assert page.client.post("/api/decisions", json=decision, headers={"origin": origin}).status_code == 403
    as_text = {"content-type": "text/plain"}  # allowed for other pages without a CORS preflight
    assert page.client.post("/api/decisions", content=json.dumps(decision), headers=as_text).status_code == 422
    assert page.log.read() == []
    assert page.client.post("/api/decisions", json=decision, headers={"origin": HERE}).status_code == 201


def test_a_configured_token_is_required(page: Page) -> None:
    there = "http://192.168.0.5:8765"
    guarded = Guard(build_app(page.session, page.log, str), "se-cret")
    client = TestClient(guarded, base_url=there, headers={"origin": there})
    for address in ("/", "/api/session", f"/whole/{page.session.ids[0]}", "/?token=wrong", "/?token="):
        assert client.get(address).status_code == 401
    assert client.post("/api/undo?token=se-cret", json={"reviewer": "A"}).status_code == 401
    assert client.get("/api/session", headers={"cookie": "inandout_review=wrong"}).status_code == 401
    first = client.get("/?token=se-cret", follow_redirects=False)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert "HttpOnly" in first.headers["set-cookie"]
    assert client.get("/api/session").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.com\\@127.0.0.1", "evil.com@127.0.0.1", "[::1", "127.0.0.1:x", "127.0.0.1/x", "127.0.0.1#", "::1"]
)
def test_a_host_that_cannot_be_parsed_is_refused(page: Page, host: str) -> None:
    for origin in (HERE, f"http://{host}"):
        answer = page.client.get("/api/session", headers={"host": host, "origin": origin})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("proof", "status"),
    [
        ({}, 403), ({"origin": "null"}, 403), ({"origin": "http://[::1"}, 403), ({"origin": "garbage"}, 403),
        ({"origin": f"{HERE}.evil.example"}, 403), ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403), ({"origin": HERE, "sec-fetch-site": "cross-site"}, 403),
        ({"origin": HERE}, 201), ({"sec-fetch-site": "same-origin"}, 201),
    ],
)  # fmt: skip
def test_a_change_needs_a_proof_that_the_page_sent_it(page: Page, proof: dict[str, str], status: int) -> None:
    bare = TestClient(page.client.app, base_url=HERE)
    decision = {"image": page.session.ids[0], "decision": "keep", "reviewer": "A", "seen": 0}
    assert bare.post("/api/decisions", json=decision, headers=proof).status_code == status
    assert bare.get("/api/session").status_code == 200


def test_loopback_hosts_are_recognised() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "localhost", "::1", "[::1]", "127.1.2.3"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.0.5", "localhost.evil.example", ""]))

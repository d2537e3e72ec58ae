import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from inandout.data.images import Picture, read_image
from inandout.errors import InputError
from inandout.review.app import Painted, build_app
from inandout.review.decisions import DecisionLog
from inandout.review.prompt_lab import Room, Try, Wish
from inandout.review.session import Desk

WISH = Wish(prompts=["scratched", "cracked"], alpha=0.5, guidance=3, number=2, seed=1)


def draw(wish: Wish) -> Iterator[tuple[int, Picture]]:
    """Pictures as grey as their place."""
    if wish.prompts[0] == "fails":
        raise InputError("the prompt is too long")
    for number in range(wish.number):
        for prompt in range(len(wish.prompts)):
            yield prompt, np.full((8, 8, 3), 10 * prompt + number, np.uint8)


def wait(room: Room, fits: Callable[[list[Try]], bool]) -> list[Try]:
    deadline = time.monotonic() + 30
    while not fits(room.tries()):
        assert time.monotonic() < deadline, room.tries()
        time.sleep(0.01)
    return room.tries()


def is_over(tries: list[Try]) -> bool:
    return all(one.state in ("done", "failed") for one in tries)


def test_a_try_is_drawn_and_its_pictures_lie_by_prompt(tmp_path: Path) -> None:
    room = Room(tmp_path, draw)
    room.wish(WISH)
    (one,) = wait(room, is_over)
    assert (one.state, one.made) == ("done", [2, 2])
    path = room.picture(1, 1, 1)
    assert path is not None
    assert read_image(path)[0, 0, 0] == 11
    assert room.picture(1, 1, 2) is None
    assert room.picture(2, 0, 0) is None


def test_a_try_that_fails_says_why_and_the_next_one_is_drawn(tmp_path: Path) -> None:
    room = Room(tmp_path, draw)
    room.wish(WISH.model_copy(update={"prompts": ["fails"]}))
    room.wish(WISH)
    first, second = wait(room, is_over)
    assert (first.state, first.error, second.state) == ("failed", "the prompt is too long", "done")


def test_the_history_and_the_chosen_prompts_are_there_the_next_time(tmp_path: Path) -> None:
    room = Room(tmp_path, draw)
    room.wish(WISH)
    wait(room, is_over)
    room.choose("scratched", True)
    room.choose("ü 😀 <b>", True)
    room.choose("scratched", True)
    again = Room(tmp_path, draw)
    assert again.tries() == room.tries()
    assert again.chosen() == ["ü 😀 <b>", "scratched"]
    assert shlex.split(again.option()) == ["--prompts", "ü 😀 <b>|scratched"]
    assert again.choose("scratched", False) == ["ü 😀 <b>"]
    assert again.wish(WISH).id == 2


def test_progress_is_seen_while_it_is_drawn_and_the_queue_has_an_end(tmp_path: Path) -> None:
    go_on = threading.Event()

    def slow(wish: Wish) -> Iterator[tuple[int, Picture]]:
        for pair in draw(wish):
            yield pair
            go_on.wait(30)

    room = Room(tmp_path, slow)
    room.wish(WISH)
    wait(room, lambda tries: tries[0].made == [1, 0])
    with pytest.raises(InputError, match="8 tries are waiting"):
        for _ in range(9):
            room.wish(WISH)
    go_on.set()
    assert len(wait(room, is_over)) == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": []}, {"prompts": ["a"] * 3}, {"prompts": [""]}, {"prompts": ["a|b"]}, {"prompts": ["x" * 301]},
        {"alpha": 1.1}, {"guidance": 0.5}, {"number": 0}, {"number": 17}, {"seed": -1}, {"alpha": float("nan")},
    ],
)  # fmt: skip
def test_a_wish_out_of_range_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Wish.model_validate(WISH.model_dump() | changes)


def test_a_prompt_is_one_line() -> None:
    assert Wish.model_validate(WISH.model_dump() | {"prompts": [" two\nlines \t"]}).prompts == ["two lines"]


def test_the_server_of_a_room(tmp_path: Path) -> None:
    room = Room(tmp_path / "room", draw)
    desk = Desk("Prompt room", [], [], [])
    client = TestClient(build_app(desk, DecisionLog(tmp_path / "d.jsonl"), str, Painted(room, WISH)))
    assert client.get("/api/desk").json()["room"] is True
    assert client.get("/api/room").json()["start"]["prompts"] == ["scratched", "cracked"]
    wish = WISH.model_dump(mode="json")
    assert client.post("/api/tries", json=wish).status_code == 201
    wait(room, is_over)
    assert client.get("/api/tries").json()["tries"][0]["made"] == [2, 2]
    assert client.get("/try/1/1/1").headers["content-type"] == "image/png"
    for address in ("/try/1/1/9", "/try/9/0/0", "/try/..%2f1/0/0", "/try/1/-1/0"):
        assert client.get(address).status_code in (404, 422)
    refused = client.post("/api/tries", json=wish | {"number": 99})
    assert refused.status_code == 422
    assert "number" in refused.json()["error"]
    assert client.post("/api/prompts", json={"prompt": "scratched", "use": True}).json() == {"chosen": ["scratched"]}

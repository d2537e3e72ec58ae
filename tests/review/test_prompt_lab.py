import shlex
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from inandout.data.images import ImageArray, read_image
from inandout.errors import InputError
from inandout.review.app import PromptLabPage, build_app
from inandout.review.decisions import DecisionLog
from inandout.review.prompt_lab import Attempt, GenerationRequest, PromptLab
from inandout.review.session import ReviewSession

REQUEST = GenerationRequest(prompts=["scratched", "cracked"], alpha=0.5, guidance=3, number=2, seed=1)


def draw(request: GenerationRequest) -> Iterator[tuple[int, ImageArray]]:
    """Generate uniform images whose grey level encodes prompt and number."""
    if request.prompts[0] == "fails":
        raise InputError("the prompt is too long")
    for number in range(request.number):
        for prompt in range(len(request.prompts)):
            yield prompt, np.full((8, 8, 3), 10 * prompt + number, np.uint8)


def wait(lab: PromptLab, condition: Callable[[list[Attempt]], bool]) -> list[Attempt]:
    deadline = time.monotonic() + 30
    while not condition(lab.attempts()):
        assert time.monotonic() < deadline, lab.attempts()
        time.sleep(0.01)
    return lab.attempts()


def is_over(attempts: list[Attempt]) -> bool:
    return all(attempt.state in ("done", "failed") for attempt in attempts)


def test_the_images_of_an_attempt_are_stored_by_prompt(tmp_path: Path) -> None:
    lab = PromptLab(tmp_path, draw)
    lab.submit(REQUEST)
    (attempt,) = wait(lab, is_over)
    assert (attempt.state, attempt.made) == ("done", [2, 2])
    path = lab.image(1, 1, 1)
    assert path is not None
    assert read_image(path)[0, 0, 0] == 11
    assert lab.image(1, 1, 2) is None
    assert lab.image(2, 0, 0) is None


def test_a_failed_attempt_has_an_error_and_the_next_one_is_generated(tmp_path: Path) -> None:
    lab = PromptLab(tmp_path, draw)
    lab.submit(REQUEST.model_copy(update={"prompts": ["fails"]}))
    lab.submit(REQUEST)
    first, second = wait(lab, is_over)
    assert (first.state, first.error, second.state) == ("failed", "the prompt is too long", "done")


def test_the_history_and_the_chosen_prompts_are_restored(tmp_path: Path) -> None:
    lab = PromptLab(tmp_path, draw)
    lab.submit(REQUEST)
    wait(lab, is_over)
    lab.choose("scratched", True)
    lab.choose("ü 😀 <b>", True)
    lab.choose("scratched", True)
    again = PromptLab(tmp_path, draw)
    assert again.attempts() == lab.attempts()
    assert again.chosen() == ["ü 😀 <b>", "scratched"]
    assert shlex.split(again.option()) == ["--prompts", "ü 😀 <b>|scratched"]
    assert again.choose("scratched", False) == ["ü 😀 <b>"]
    assert again.submit(REQUEST).id == 2


def test_progress_is_visible_and_the_queue_is_limited(tmp_path: Path) -> None:
    go_on = threading.Event()

    def slow(request: GenerationRequest) -> Iterator[tuple[int, ImageArray]]:
        for pair in draw(request):
            yield pair
            go_on.wait(30)

    lab = PromptLab(tmp_path, slow)
    lab.submit(REQUEST)
    wait(lab, lambda attempts: attempts[0].made == [1, 0])
    with pytest.raises(InputError, match="8 attempts are waiting"):
        for _ in range(9):
            lab.submit(REQUEST)
    go_on.set()
    assert len(wait(lab, is_over)) == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": []}, {"prompts": ["a"] * 3}, {"prompts": [""]}, {"prompts": ["a|b"]}, {"prompts": ["x" * 301]},
        {"alpha": 1.1}, {"guidance": 0.5}, {"number": 0}, {"number": 17}, {"seed": -1}, {"alpha": float("nan")},
    ],
)  # fmt: skip
def test_a_request_out_of_range_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GenerationRequest.model_validate(REQUEST.model_dump() | changes)


def test_a_prompt_is_one_line() -> None:
    typed = REQUEST.model_dump() | {"prompts": [" two\nlines \t"]}
    assert GenerationRequest.model_validate(typed).prompts == ["two lines"]


def test_the_server_of_the_prompt_lab(tmp_path: Path) -> None:
    lab = PromptLab(tmp_path / "lab", draw)
    session = ReviewSession("Prompt lab", [], [], [])
    client = TestClient(build_app(session, DecisionLog(tmp_path / "d.jsonl"), str, PromptLabPage(lab, REQUEST)))
    assert client.get("/api/session").json()["prompt_lab"] is True
    assert client.get("/api/prompt-lab").json()["start"]["prompts"] == ["scratched", "cracked"]
    request = REQUEST.model_dump(mode="json")
    assert client.post("/api/attempts", json=request).status_code == 201
    wait(lab, is_over)
    assert client.get("/api/attempts").json()["attempts"][0]["made"] == [2, 2]
    assert client.get("/attempt/1/1/1").headers["content-type"] == "image/png"
    for address in ("/attempt/1/1/9", "/attempt/9/0/0", "/attempt/..%2f1/0/0", "/attempt/1/-1/0"):
        assert client.get(address).status_code in (404, 422)
    refused = client.post("/api/attempts", json=request | {"number": 99})
    assert refused.status_code == 422
    assert "number" in refused.json()["error"]
    assert client.post("/api/prompts", json={"prompt": "scratched", "use": True}).json() == {"chosen": ["scratched"]}

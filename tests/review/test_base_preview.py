import threading
import time
from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import Picture, read_image
from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.review.base_preview import Twin, Twins, has_twin
from tests.review.sessions import noise, write_pool


def wait(twins: Twins, name: str, row: Sample) -> Twin:
    deadline = time.monotonic() + 20
    while (twin := twins.of(name, row)).state == "drawing":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return twin


def test_a_twin_is_drawn_once_and_kept(tmp_path: Path) -> None:
    rows, drawn = write_pool(tmp_path / "pool", 2), []

    def draw(row: Sample) -> Picture:
        drawn.append(row.seed)
        return noise(row.seed or 0)

    assert np.array_equal(read_image(wait(Twins(tmp_path / "twins", draw), "a", rows[1]).path), noise(1))
    assert wait(Twins(tmp_path / "twins", draw), "a", rows[1]).state == "ready"
    assert drawn == [1]


def test_what_is_looked_at_now_is_drawn_before_what_was_passed_over(tmp_path: Path) -> None:
    rows, drawn, go = write_pool(tmp_path / "pool", 4), [], threading.Event()

    def draw(row: Sample) -> Picture:
        go.wait()
        drawn.append(row.seed)
        return noise(row.seed or 0)

    twins = Twins(tmp_path / "twins", draw)
    twins.of("0", rows[0])
    time.sleep(0.2)  # the thread has taken the first
    for number in (1, 2, 3, 1):
        twins.of(str(number), rows[number])
    go.set()
    for number in range(4):
        wait(twins, str(number), rows[number])
    assert drawn[:2] == [0, 1]


def test_a_twin_that_cannot_be_drawn_says_why_and_the_next_one_is_drawn(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 2)

    def draw(row: Sample) -> Picture:
        if row.seed == 0:
            raise InputError("the base has gone")
        return noise(1)

    twins = Twins(tmp_path / "twins", draw)
    assert wait(twins, "0", rows[0]).error == "the base has gone"
    assert wait(twins, "1", rows[1]).state == "ready"


@pytest.mark.parametrize(("changes", "there"), [({}, True), ({"alpha": 0.0}, False), ({"origin": "memseg"}, False)])
def test_only_pictures_of_an_adapter_have_one(tmp_path: Path, changes: dict[str, object], there: bool) -> None:
    assert has_twin(write_pool(tmp_path, 1)[0].with_(**changes)) == there

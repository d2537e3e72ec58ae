import threading
import time
from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.review.base_preview import BasePreview, PreviewState, has_preview
from tests.review.sessions import noise, write_pool


def wait(base_preview: BasePreview, name: str, row: Sample) -> PreviewState:
    deadline = time.monotonic() + 20
    while (preview := base_preview.of(name, row)).state == "drawing":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return preview


def test_a_preview_is_generated_once_and_cached(tmp_path: Path) -> None:
    rows, drawn = write_pool(tmp_path / "pool", 2), []

    def draw(row: Sample) -> ImageArray:
        drawn.append(row.seed)
        return noise(row.seed or 0)

    assert np.array_equal(read_image(wait(BasePreview(tmp_path / "previews", draw), "a", rows[1]).path), noise(1))
    assert wait(BasePreview(tmp_path / "previews", draw), "a", rows[1]).state == "ready"
    assert drawn == [1]


def test_the_most_recently_requested_preview_is_generated_first(tmp_path: Path) -> None:
    rows, drawn, go = write_pool(tmp_path / "pool", 4), [], threading.Event()

    def draw(row: Sample) -> ImageArray:
        go.wait()
        drawn.append(row.seed)
        return noise(row.seed or 0)

    base_preview = BasePreview(tmp_path / "previews", draw)
    base_preview.of("0", rows[0])
    time.sleep(0.2)  # the thread has taken the first
    for number in (1, 2, 3, 1):
        base_preview.of(str(number), rows[number])
    go.set()
    for number in range(4):
        wait(base_preview, str(number), rows[number])
    assert drawn[:2] == [0, 1]


def test_a_failed_preview_has_an_error_and_the_next_one_is_generated(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 2)

    def draw(row: Sample) -> ImageArray:
        if row.seed == 0:
            raise InputError("the base has gone")
        return noise(1)

    base_preview = BasePreview(tmp_path / "previews", draw)
    assert wait(base_preview, "0", rows[0]).error == "the base has gone"
    assert wait(base_preview, "1", rows[1]).state == "ready"


@pytest.mark.parametrize(("changes", "expected"), [({}, True), ({"alpha": 0.0}, False), ({"origin": "memseg"}, False)])
def test_only_images_of_an_adapter_have_a_preview(tmp_path: Path, changes: dict[str, object], expected: bool) -> None:
    assert has_preview(write_pool(tmp_path, 1)[0].with_(**changes)) == expected

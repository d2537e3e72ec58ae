from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import read_image
from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.review.session import build_session
from tests.review.sessions import local_change, small_session, write_pool, write_real


def test_duplicate_images_appear_once(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 3)
    again = tmp_path / "pool" / "again.png"
    again.write_bytes(rows[0].image.read_bytes())
    session = build_session("p", tmp_path / "pool", [*rows, rows[0].with_(image=again)], [])
    assert len(session.samples) == len(session.ids) == len(set(session.ids)) == 3


def test_the_identity_depends_on_the_images_alone(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 3)
    first = build_session("p", tmp_path / "pool", rows, [])
    second = build_session("q", tmp_path / "pool", [row.with_(prompt="", review="keep") for row in rows[::-1]], [])
    assert first.identity == second.identity != build_session("p", tmp_path / "pool", rows[:2], []).identity


def test_the_source_of_a_local_change_is_found_and_an_unchanged_image_flagged(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real")
    (tmp_path / "pool").mkdir()
    rows = [local_change(real[-1], tmp_path / "pool", amount) for amount in (0, 60)]
    session = build_session("p", tmp_path / "pool", rows, real)
    assert session.flags == [["unchanged"], []]
    source = session.source(session.ids[1])
    assert source is not None
    assert np.array_equal(source, read_image(real[-1].image))
    assert small_session(tmp_path / "other").source(small_session(tmp_path / "other").ids[0]) is None


@pytest.mark.parametrize("how", ["elsewhere", "upwards", "link", "mask"])
def test_rows_that_point_outside_the_pool_are_refused(tmp_path: Path, how: str) -> None:
    rows = write_pool(tmp_path / "pool", 2)
    secret = write_real(tmp_path / "secret", 1, 0)[0].image
    link = tmp_path / "pool" / "link.png"
    link.symlink_to(secret)
    bad: dict[str, Sample] = {
        "elsewhere": rows[0].with_(image=secret),
        "upwards": rows[0].with_(image=tmp_path / "pool" / ".." / "secret" / secret.name),
        "link": rows[0].with_(image=link),
        "mask": rows[0].with_(mask=secret),
    }
    with pytest.raises(InputError, match="outside the pool"):
        build_session("p", tmp_path / "pool", [bad[how], rows[1]], [])

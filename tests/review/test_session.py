from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import read_image
from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.review.session import lay_out
from tests.review.sessions import local_change, small_desk, write_pool, write_real


def test_a_picture_that_is_there_twice_lies_on_the_desk_once(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 3)
    again = tmp_path / "pool" / "again.png"
    again.write_bytes(rows[0].image.read_bytes())
    desk = lay_out("p", tmp_path / "pool", [*rows, rows[0].with_(image=again)], [])
    assert len(desk.samples) == len(desk.ids) == len(set(desk.ids)) == 3


def test_the_identity_is_that_of_the_pictures_alone(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 3)
    one = lay_out("p", tmp_path / "pool", rows, [])
    two = lay_out("q", tmp_path / "pool", [row.with_(prompt="", review="keep") for row in rows[::-1]], [])
    assert one.identity == two.identity != lay_out("p", tmp_path / "pool", rows[:2], []).identity


def test_the_source_of_a_local_change_is_found_and_an_unchanged_one_flagged(tmp_path: Path) -> None:
    real = write_real(tmp_path / "real")
    (tmp_path / "pool").mkdir()
    rows = [local_change(real[-1], tmp_path / "pool", amount) for amount in (0, 60)]
    desk = lay_out("p", tmp_path / "pool", rows, real)
    assert desk.flags == [["unchanged"], []]
    source = desk.source(desk.ids[1])
    assert source is not None
    assert np.array_equal(source, read_image(real[-1].image))
    assert small_desk(tmp_path / "other").source(small_desk(tmp_path / "other").ids[0]) is None


@pytest.mark.parametrize("how", ["elsewhere", "upwards", "link", "mask"])
def test_rows_that_point_outside_of_the_pool_are_refused(tmp_path: Path, how: str) -> None:
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
    with pytest.raises(InputError, match="outside of the pool"):
        lay_out("p", tmp_path / "pool", [bad[how], rows[1]], [])

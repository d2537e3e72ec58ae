import pytest

from inandout.diffusion.finetune.buckets import batches, bucket_of
from inandout.errors import InputError


@pytest.mark.parametrize(
    ("width", "height", "area", "multiple", "expected"),
    [
        (512, 512, 512 * 512, 64, (512, 512)),
        (230, 630, 512 * 512, 64, (320, 768)),  # KolektorSDD2 in the paper's run
        (640, 480, 512 * 512, 64, (576, 448)),
        (96, 96, 96 * 96, 16, (96, 96)),
        (100, 300, 96 * 96, 16, (48, 192)),
        (9000, 10, 64 * 64, 16, (256, 16)),
    ],
)
def test_a_bucket_has_the_nearest_aspect_ratio(
    width: int, height: int, area: int, multiple: int, expected: tuple[int, int]
) -> None:
    bucket = bucket_of(width, height, area, multiple)
    assert (bucket.width, bucket.height) == expected
    assert bucket.width % multiple == bucket.height % multiple == 0
    assert bucket.width * bucket.height <= area


def test_a_too_small_area_is_rejected() -> None:
    with pytest.raises(InputError, match="too small for a 64x64 image"):
        bucket_of(100, 100, 63 * 63, 64)


def test_batches_have_one_size_and_hold_every_image() -> None:
    sizes = [(8, 8), (8, 16), (8, 8), (16, 8)]
    order = [0, 1, 2, 3, 0, 1, 2, 1, 0]
    result = batches(sizes, order, 2)
    assert sorted(index for batch in result for index in batch) == sorted(order)
    assert all(len({sizes[index] for index in batch}) == 1 for batch in result)
    assert result[0] == [0, 2]
    assert [len(batch) for batch in result] == [2, 2, 2, 1, 1, 1]

from collections import Counter

import numpy as np

from inandout.data.surfaces import KINDS
from inandout.diffusion.pretrain.config import HELD_OUT
from inandout.diffusion.pretrain.stream import CLOSE_UP, PLAIN, SHAPES, WEIGHTED_KINDS, WHOLE, SurfaceStream


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first, second = SurfaceStream(7, 4).batch(11), SurfaceStream(7, 4).batch(11)
    assert np.array_equal(first.images, second.images)
    assert first.captions == second.captions
    assert first.defects == second.defects
    assert np.array_equal(first.masks, second.masks)
    assert first.masks.any(axis=(1, 2)).tolist() == [bool(defect) for defect in first.defects]


def test_steps_and_seeds_differ() -> None:
    first = SurfaceStream(7, 4).batch(0, (64, 64)).images
    assert not np.array_equal(first, SurfaceStream(7, 4).batch(1, (64, 64)).images)
    assert not np.array_equal(first, SurfaceStream(8, 4).batch(0, (64, 64)).images)
    assert not np.array_equal(first, SurfaceStream(HELD_OUT, 4).batch(0, (64, 64)).images)


def test_close_ups_have_their_share() -> None:
    for share, minimum, maximum in ((0.0, 0, 0), (0.5, 35, 65), (1.0, 100, 100)):
        stream = SurfaceStream(0, 1, share)
        drawn = [stream.batch(step).images.shape[2:0:-1] == CLOSE_UP for step in range(100)]
        assert minimum <= sum(drawn) <= maximum, share


def test_all_shapes_occur_and_batches_of_larger_images_are_smaller() -> None:
    batches = [SurfaceStream(0, 3).batch(step) for step in range(150)]
    shapes = Counter(batch.images.shape[2:0:-1] for batch in batches)
    assert set(shapes) == {CLOSE_UP, *SHAPES}
    for batch in batches:
        count, height, width, _ = batch.images.shape
        assert count == len(batch.captions) == len(batch.defects)
        assert count == 1 or count * width * height <= 3 * 64 * 64


def test_plain_images_and_every_kind_have_their_share() -> None:
    counts = Counter(defect for step in range(4) for defect in SurfaceStream(0, 64).batch(step, (16, 16)).defects)
    total = counts.total()
    assert abs(counts[""] / total - PLAIN) < 0.06
    assert all(abs(counts[kind] / total - (1 - PLAIN) / len(KINDS)) < 0.06 for kind in KINDS)


def test_a_close_up_contains_part_of_the_defect() -> None:
    batch = SurfaceStream(0, 32).batch(3, CLOSE_UP)
    assert batch.images.shape == (128, 32, 32, 3)
    assert batch.masks.any(axis=(1, 2)).tolist() == [bool(defect) for defect in batch.defects]
    assert SurfaceStream(0, 128).batch(3, WHOLE).masks.mean() < 0.7 * batch.masks.mean()


def test_a_kind_occurs_as_often_as_it_is_listed() -> None:
    stream = SurfaceStream(0, 16, 0.0, WEIGHTED_KINDS)
    counts = Counter(defect for step in range(40) for defect in stream.batch(step, WHOLE).defects if defect)
    assert set(counts) == set(KINDS)
    often = ("stained", "cracked", "pitted")
    assert [kind for kind, _ in counts.most_common(3)] == list(often)
    assert counts["pitted"] > 1.5 * max(counts[kind] for kind in KINDS if kind not in often)
    assert set(SurfaceStream(0, 16, 0.0, ("pitted",)).batch(0, WHOLE).defects) == {"", "pitted"}

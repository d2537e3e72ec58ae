"""Random streams: their numbers, which every result at a fixed seed depends on."""

import numpy as np
import pytest

from inandout.seeds import DreamBoothStream, PoolStream, Stream, SurfaceStream, derive_seed, generator, image_seed


def test_the_numbers_of_the_streams_never_change() -> None:
    groups = (PoolStream, DreamBoothStream, SurfaceStream)
    assert {stream.name: int(stream) for group in groups for stream in group} == {
        "NEGATIVES": 0, "MEMSEG": 1, "DIFFUSION": 2, "HELD_OUT": 3, "WINDOWS": 4,
        "INSTANCES": 0, "PRIORS": 1, "MASKS": 2,
        "BACKGROUND": 0, "STYLE": 1, "DEFECT": 2, "PRODUCT": 3,
    }  # fmt: skip


@pytest.mark.parametrize("stream", [*PoolStream, *DreamBoothStream, *SurfaceStream])
def test_a_stream_is_the_seed_sequence_of_its_number(stream: Stream) -> None:
    plain = np.random.default_rng([7, int(stream), 3])
    assert generator(7, stream, 3).integers(1 << 40, size=5).tolist() == plain.integers(1 << 40, size=5).tolist()
    assert image_seed(7, stream, 3) == np.random.SeedSequence([7, int(stream), 3]).generate_state(1, np.uint64)[0] >> 11


def test_seeds_stay_what_they_were() -> None:
    assert image_seed(0, PoolStream.MEMSEG, 0) == 2_849_867_795_630_718
    assert image_seed(5, PoolStream.DIFFUSION, 2) == 5_833_828_373_067_399
    assert derive_seed(0, PoolStream.HELD_OUT) == 2_613_022_947
    assert generator(1, PoolStream.NEGATIVES, 0).permutation(8).tolist() == [5, 0, 1, 4, 2, 6, 3, 7]

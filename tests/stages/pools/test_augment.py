from pathlib import Path

import mlflow
import numpy as np
import pytest
from pydantic import ValidationError

from inandout.data.images import read_image, read_mask, write_image
from inandout.data.manifest import digest, read_manifest
from inandout.errors import InputError
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.stages.pools.pool import Pool, read_pool
from tests.conftest import SIDE


def make(tiny: Path, **changes: object) -> Pool:
    return augment(AugmentConfig.from_flat(**{"data": str(tiny), "n_aug": 6, "width": SIDE, "height": SIDE} | changes))


def test_a_pool_holds_positives_with_masks_made_from_training_negatives(tiny: Path, project: Path) -> None:
    pool = make(tiny)
    negatives = {digest(s.image) for s in read_manifest(tiny) if s.split == "train" and s.label == 0}
    assert len(pool.samples) == 6
    for sample in pool.samples:
        assert (sample.label, sample.origin, sample.split) == (1, "memseg", "train")
        assert set(sample.sources) <= negatives
        assert read_image(sample.image).shape == (SIDE, SIDE, 3)
        assert sample.mask is not None
        assert read_mask(sample.mask).any()
    assert mlflow.get_run(pool.run_id).info.status == "FINISHED"
    assert {"pool.png", "config.json", "manifest.csv", "gallery"} <= {
        artifact.path for artifact in mlflow.MlflowClient().list_artifacts(pool.run_id)
    }


def test_a_pool_is_reused_after_the_data_moved(tiny: Path, project: Path) -> None:
    first = make(tiny)
    assert make(tiny).run_id == first.run_id
    moved = tiny.parent.rename(tiny.parent.with_name("moved")) / tiny.name
    assert make(moved).run_id == first.run_id
    assert make(moved, fresh=True).run_id != first.run_id


def test_an_edited_image_gives_a_new_pool(tiny: Path, project: Path) -> None:
    first = make(tiny)
    path = tiny.parent / "0.png"
    path.write_bytes((tiny.parent / "1.png").read_bytes()[:-12] + path.read_bytes()[-12:])
    with pytest.raises(InputError, match="the same content as"):
        make(tiny)
    write_image(path, 255 - read_image(tiny.parent / "2.png"))
    assert make(tiny).run_id != first.run_id


def test_a_larger_pool_starts_with_the_smaller_one_and_seeds_give_other_pools(tiny: Path, project: Path) -> None:
    small, large, other = make(tiny), make(tiny, n_aug=9), make(tiny, seed=1)
    for first, second in zip(small.samples, large.samples, strict=False):
        assert np.array_equal(read_image(first.image), read_image(second.image))
    assert [s.seed for s in other.samples] != [s.seed for s in small.samples]


def test_a_pool_has_at_least_one_image(tiny: Path, project: Path) -> None:
    assert len(make(tiny, n_aug=1).samples) == 1
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        make(tiny, n_aug=0)


def test_the_content_of_a_texture_folder_is_part_of_the_fingerprint(tiny: Path, project: Path, tmp_path: Path) -> None:
    textures = tmp_path / "textures"
    textures.mkdir()
    (textures / "a.png").write_bytes((tiny.parent / "20.png").read_bytes())
    first = make(tiny, textures=str(textures))
    assert make(tiny, textures=str(textures)).run_id == first.run_id
    (textures / "a.png").write_bytes((tiny.parent / "21.png").read_bytes())
    assert make(tiny, textures=str(textures)).run_id != first.run_id


def test_a_folder_without_a_manifest_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no manifest\.csv"):
        read_pool(tmp_path)

"""Synthetic negatives: negatives with the fingerprint of the generator."""

from pathlib import Path

import mlflow
import numpy as np
import pytest

from inandout.data.colour import is_grey
from inandout.data.images import read_image, read_mask
from inandout.data.manifest import digest, read_manifest
from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.sample.vae_roundtrip import round_trip
from inandout.errors import InputError
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify, ignored_options
from inandout.stages.experiment.config import CompareConfig
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.stages.pools.pool import open_pool
from tests.conftest import SIDE, shrink_presets

pytestmark = pytest.mark.slow

SIZE = {"width": SIDE, "height": SIDE}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a tiny preset and few steps, and skip the training: the tests check the mix only."""
    shrink_presets(monkeypatch)
    monkeypatch.setattr("inandout.stages.classify.train.fit", lambda *_, **__: [])
    monkeypatch.setattr("inandout.stages.classify.train._log_model", lambda *_: None)


def train(tiny: Path, tiny_base: Path, **changes: object) -> Result:
    small = {"n_aug": 5, "epochs": 1, "batch_size": 8, "shot": "zero", "ddpm_ratio": 0.5, **SIZE}
    small |= {"backbone": "resnet18"}
    return classify(ClassifyConfig.from_flat(**{"data": str(tiny), "base": str(tiny_base)} | small | changes))


def runs(stage: str) -> list[mlflow.entities.Run]:
    found = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run for run in found if run.data.tags["inandout.stage"] == stage]


def counts(result: Result) -> dict[str, str]:
    params = mlflow.get_run(result.run_id).data.params
    return {name: value for name, value in params.items() if name.startswith("n_train_") and "real" not in name}


def test_good_parts_pass_through_the_vae_and_are_added_to_the_mix(tiny: Path, tiny_base: Path, project: Path) -> None:
    positives = {"n_train_ddpm_positives": "2", "n_train_memseg_positives": "3"}
    assert counts(train(tiny, tiny_base)) == positives
    result = train(tiny, tiny_base, negatives="roundtrip")
    assert counts(result) == positives | {"n_train_roundtrip_negatives": "2"}
    (pool_run,) = runs("negatives")
    rows = open_pool(pool_run.info.run_id).samples
    real = {digest(sample.image): sample for sample in read_manifest(tiny)}
    pipeline = open_base(BaseConfig(base=str(tiny_base))).pipeline
    for row in rows:
        (source,) = row.sources
        assert (row.label, row.origin, row.split, row.mask) == (0, "roundtrip", "train", None)
        assert real[source].label == 0
        image = read_image(row.image)
        assert np.array_equal(image, round_trip(pipeline, read_image(real[source].image)[None])[0])
        assert is_grey(image)
    train(tiny, tiny_base, negatives="roundtrip", alpha=0.2)
    assert len(runs("negatives")) == 1, "another alpha needs no other round trip"


def test_prompts_of_good_images_name_no_defect(tiny: Path, tiny_base: Path, project: Path) -> None:
    result = train(tiny, tiny_base, negatives="generated")
    assert counts(result)["n_train_ddpm_negatives"] == "2"
    (pool_run,) = runs("negatives")
    rows = open_pool(pool_run.info.run_id).samples
    assert {(row.label, row.origin, row.prompt) for row in rows} == {(0, "ddpm", "skt background")}
    (drawn,) = [run for run in runs("augment") if "prompts" in run.data.params]
    defects = open_pool(drawn.info.run_id).samples
    assert [row.seed for row in rows] == [row.seed for row in defects], "each defect has a negative with the same seed"
    with pytest.raises(InputError, match="label 0 in a pool of ddpm positives"):
        train(tiny, tiny_base, ddpm_pool=pool_run.info.run_id)
    few = train(tiny, tiny_base, negatives="generated", shot="few", n_shot=3)
    assert counts(few)["n_train_ddpm_negatives"] == "2"
    shots = [run.data.params["shot"] for run in runs("finetune")]
    assert sorted(shots) == ["few", "zero"], "an adapter of good parts draws good parts"
    assert len(runs("negatives")) == 1, "all shots share the images of the zero-shot adapter"


def test_the_round_trip_of_an_inpainted_defect_has_its_mask(tiny: Path, tiny_base: Path, project: Path) -> None:
    result = train(tiny, tiny_base, negatives="roundtrip", diffusion="inpaint", ddpm_ratio=1.0, n_aug=3)
    assert counts(result) == {"n_train_inpaint_positives": "3", "n_train_roundtrip_negatives": "3"}
    (pool_run,), (pool,) = runs("negatives"), runs("augment")
    parts = {digest(sample.image): read_image(sample.image) for sample in read_manifest(tiny)}
    for good, bad in zip(open_pool(pool_run.info.run_id).samples, open_pool(pool.info.run_id).samples, strict=True):
        assert bad.mask is not None
        mask, before, after = read_mask(bad.mask), parts[bad.sources[0]], read_image(good.image)
        assert good.sources == bad.sources[:1]
        assert np.array_equal(after[~mask], before[~mask])
        assert not np.array_equal(after[mask], before[mask])
    with pytest.raises(InputError, match=r"negatives = generated: .*negatives=roundtrip"):
        train(tiny, tiny_base, negatives="generated", diffusion="inpaint", ddpm_ratio=1.0, n_aug=3)


def test_a_mix_without_diffusion_images_has_no_synthetic_negatives(tiny: Path, tiny_base: Path, project: Path) -> None:
    plain = train(tiny, tiny_base, ddpm_ratio=0)
    assert train(tiny, tiny_base, ddpm_ratio=0, negatives="roundtrip") == plain
    assert train(tiny, tiny_base, ddpm_ratio=0, negatives="generated", diffusion="inpaint") == plain
    assert runs("negatives") == []


def test_an_existing_pool_determines_its_synthetic_negatives(tiny: Path, tiny_base: Path, project: Path) -> None:
    shared = {"data": str(tiny), "base": str(tiny_base), "n_aug": 3, **SIZE}
    zero = augment(AugmentConfig.from_flat(source="ddpm", shot="zero", prompts="pits", alpha=0.4, **shared)).run_id
    config = {"ddpm_pool": zero, "ddpm_ratio": 1.0, "n_aug": 3}
    assert counts(train(tiny, tiny_base, negatives="generated", **config))["n_train_ddpm_negatives"] == "3"
    (pool_run,) = runs("negatives")
    assert {(row.prompt, row.alpha) for row in open_pool(pool_run.info.run_id).samples} == {("skt background", 0.4)}
    folder = str(Path(open_pool(zero).samples[0].image).parent)
    with pytest.raises(InputError, match=r"does not record the prompt and adapter"):
        train(tiny, tiny_base, negatives="generated", **config | {"ddpm_pool": folder})
    with pytest.raises(InputError, match=r"base = embedded: another base"):
        train(tiny, Path("embedded"), negatives="roundtrip", **config)
    few = augment(AugmentConfig.from_flat(source="ddpm", shot="few", n_shot=3, **shared)).run_id
    with pytest.raises(InputError, match=r"was not fine-tuned on good parts \(shot = few\)"):
        train(tiny, tiny_base, negatives="generated", shot="few", n_shot=3, **config | {"ddpm_pool": few})


def test_the_option_is_part_of_the_fingerprint_and_of_every_cell_of_a_comparison(
    tiny: Path, tiny_base: Path, project: Path
) -> None:
    shared = {"data": str(tiny), "base": str(tiny_base), "sources": "memseg,inout"}
    cells = [cell.config for cell in CompareConfig.from_flat(**shared, negatives="roundtrip").cells()]
    assert {cell.mix.negatives for cell in cells} == {"roundtrip"}
    ignored = {cell.ddpm_ratio: "negatives" in ignored_options(cell, {}) for cell in cells}
    assert ignored == {0.0: True, 0.5: False}

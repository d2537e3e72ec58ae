from pathlib import Path

import mlflow
import numpy as np
import pytest

from inandout.data.colour import is_grey
from inandout.data.images import read_image
from inandout.data.manifest import Sample, digest, read_manifest
from inandout.data.surfaces import KINDS
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.sample.sampler import image_seed
from inandout.errors import InputError
from inandout.mixing import mix
from inandout.stages.config import FinetuneConfig
from inandout.stages.finetune import finetune
from inandout.stages.pools import text2img as stage
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.stages.pools.pool import Pool
from tests.conftest import SIDE
from tests.diffusion.tiny import tiny_pipeline
from tests.stages.test_finetune import QUICK

pytestmark = pytest.mark.slow


@pytest.fixture
def adapter(tiny: Path, tiny_base: Path, project: Path) -> Path:
    return finetune(FinetuneConfig.from_flat(**{"data": str(tiny), "base": str(tiny_base)} | QUICK)).adapter


def make(tiny: Path, base: Path, adapter: Path, **changes: object) -> Pool:
    quick = {"steps": 2, "guidance": 2, "scheduler": "dpm++", "sample_batch": 4, "n_aug": 5, "shot": "zero"}
    return augment(
        AugmentConfig.from_flat(
            **{
                "source": "ddpm", "data": str(tiny), "base": str(base), "adapter": str(adapter),
                "width": SIDE, "height": SIDE,
            } | quick | changes
        )
    )  # fmt: skip


def test_every_image_records_its_origin(tiny: Path, tiny_base: Path, adapter: Path) -> None:
    pool = make(tiny, tiny_base, adapter, alpha=0.5)
    trained = load_adapter(adapter)
    assert len(pool.samples) == 5
    for sample in pool.samples:
        assert (sample.label, sample.origin, sample.split, sample.alpha) == (1, "ddpm", "train", 0.5)
        assert (sample.adapter, sample.base, sample.sources) == (
            trained.fingerprint, trained.meta.base, trained.meta.sources
        )  # fmt: skip
        assert read_image(sample.image).shape == (SIDE, SIDE, 3)
    assert [sample.prompt for sample in pool.samples] == [f"skt background {kind}" for kind in KINDS[:5]]
    assert len({sample.seed for sample in pool.samples}) == len({digest(s.image) for s in pool.samples}) == 5
    artifacts = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(pool.run_id)}
    assert {"pool", "pool.png", "alpha_strip.png"} <= artifacts


def test_the_strip_of_grey_data_is_grey_and_starts_with_the_base(tiny: Path, tiny_base: Path, adapter: Path) -> None:
    pool = make(tiny, tiny_base, adapter, alpha=0)
    strip = read_image(Path(mlflow.artifacts.download_artifacts(run_id=pool.run_id, artifact_path="alpha_strip.png")))
    assert is_grey(strip)
    first = read_image(next(s.image for s in pool.samples if s.seed == image_seed(0, 0)))
    places = np.lib.stride_tricks.sliding_window_view(strip, first.shape)[:, :, 0]
    found = np.argwhere(np.abs(places.astype(int) - first).max(axis=(2, 3, 4)) <= 1)
    assert 0 < found[:, 1].min() < strip.shape[1] / 6  # leftmost, after the frame


@pytest.mark.parametrize("index", ["{", '{"vae": null}'])
def test_an_unknown_architecture_raises_an_error(
    tiny: Path, adapter: Path, tmp_path: Path, index: str
) -> None:  # fmt: skip
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model_index.json").write_text(index)
    with pytest.raises(InputError, match=r"not a Stable Diffusion.*model_index\.json"):
        make(tiny, tmp_path / "base", adapter)


def test_the_mix_has_no_leak(tiny: Path, tiny_base: Path, adapter: Path) -> None:
    pool = make(tiny, tiny_base, adapter)
    mixed = mix(read_manifest(tiny), [], pool.samples, 5, 1.0)
    assert sum(sample.origin == "ddpm" for sample in mixed) == 5


def test_a_larger_pool_starts_with_the_smaller_one_and_an_interrupted_pool_resumes(
    tiny: Path, tiny_base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [digest(sample.image) for sample in make(tiny, tiny_base, adapter).samples]
    large = [digest(sample.image) for sample in make(tiny, tiny_base, adapter, n_aug=9).samples]
    assert large[:5] == small

    def dies(*_: object) -> list[Sample]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage, "_ddpm_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            make(tiny, tiny_base, adapter, n_aug=13)
    monkeypatch.setattr("inandout.diffusion.sample.generate.sample", lambda *_, **__: pytest.fail("drew again"))
    assert [digest(sample.image) for sample in make(tiny, tiny_base, adapter, n_aug=13).samples][:9] == large


def test_alpha_changes_images_and_prompts_rotate(tiny: Path, tiny_base: Path, adapter: Path) -> None:
    base, full = (make(tiny, tiny_base, adapter, alpha=alpha, prompts="pits | dents").samples for alpha in (0, 1))
    assert [sample.prompt for sample in base] == ["pits", "dents", "pits", "dents", "pits"]
    assert [sample.seed for sample in base] == [sample.seed for sample in full]
    assert not any(digest(a.image) == digest(b.image) for a, b in zip(base, full, strict=True))


def test_an_adapter_of_another_base_raises_an_error(
    tiny: Path, tiny_base: Path, adapter: Path, tmp_path: Path
) -> None:  # fmt: skip
    tiny_pipeline(seed=5).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="was trained on base"):
        make(tiny, tmp_path / "other", adapter)


def test_an_adapter_of_good_parts_raises_an_error_with_other_shots(
    tiny: Path, tiny_base: Path, adapter: Path
) -> None:  # fmt: skip
    with pytest.raises(InputError, match="give shot=zero"):
        make(tiny, tiny_base, adapter, shot="full")


def test_a_missing_adapter_raises_an_error(tiny: Path, tiny_base: Path, project: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.safetensors"):
        make(tiny, tiny_base, Path("nowhere.safetensors"))

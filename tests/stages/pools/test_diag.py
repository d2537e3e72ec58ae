"""Pools with DIAG's settings, and the experiment that uses them."""

from pathlib import Path

import numpy as np
import pytest

from inandout.data.config import DataConfig, Geometry, ShotConfig
from inandout.data.geometry import fit_mask
from inandout.data.images import read_image, read_mask
from inandout.data.manifest import read_manifest
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.sample.presets import DIAG_SAMPLING
from inandout.errors import InputError
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.synthetic import required_pools
from inandout.stages.experiment.config import CompareConfig, ExperimentConfig
from inandout.stages.pools.config import DdpmPoolConfig, InpaintPoolConfig, diag
from inandout.stages.pools.inpaint import augment_inpaint


def test_the_table_of_diag_has_its_published_settings(inpainting_base: Path) -> None:
    cells = ExperimentConfig.from_flat(name="diag", profile="diag", base=str(inpainting_base)).cells()
    assert {(cell.config.scenario.shot, cell.config.mix.n_aug) for cell in cells} == {
        (shot, n_aug) for shot in ("zero", "full") for n_aug in (80, 100, 120)
    }
    for cell in cells:
        pools = required_pools(cell.config)
        pool, fit = pools.diffusion, cell.config.fit
        assert pools.memseg is None and isinstance(pool, InpaintPoolConfig)
        resolved = pool.resolved()
        assert (resolved.sampling.guidance, resolved.sampling.steps) == (20, 30)
        assert (resolved.sampling.strength, resolved.sampling.mask_crop) == (0.99, 2)
        assert resolved.sampling.negative_prompt == "smooth, plain, black, dark, shadow"
        assert resolved.drawing.prompt_list() == ["white marks on the wall", "copper metal scratches"]
        assert (resolved.drawing.adapter, resolved.drawing.alpha, resolved.masks) == ("none", None, "all")
        assert (pool.geometry.width, pool.geometry.height, pool.geometry.fit) == (1024, 1024, "stretch")
        assert (cell.config.geometry.width, cell.config.geometry.height) == (256, 704)
        assert (cell.config.backbone.weights, fit.lr, fit.batch_size) == ("imagenet", 1e-4, 32)


def test_cropped_real_images_are_refused() -> None:
    options = {"diffusion": "diag", "ddpm_ratio": 1.0}
    refused = "diffusion = diag: .* fit = crop .*; give fit=stretch .*profile=diag"
    with pytest.raises(InputError, match=refused):
        ClassifyConfig.from_flat(**options).resolved()
    with pytest.raises(InputError, match=refused):
        CompareConfig.from_flat(sources="none,diag").cells()
    with pytest.raises(InputError, match=refused):
        ExperimentConfig.from_flat(name="diag").cells()
    assert CompareConfig.from_flat(sources="none,diag", fit="stretch").cells()
    for allowed in ({"fit": "stretch"}, {"ddpm_pool": "pool"}, {"n_aug": 0}):
        assert ClassifyConfig.from_flat(**options | allowed).resolved().alpha is None


def test_the_announcement_names_no_alpha() -> None:
    config = ClassifyConfig.from_flat(diffusion="diag", fit="stretch", n_aug=8, ddpm_ratio=1.0).resolved()
    assert "8 diag (base embedded); " in config.summary()[1]


@pytest.mark.slow
def test_masks_of_withheld_defects_are_used_at_zero_shot(
    tiny: Path, inpainting_base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inandout.stages.pools.config.DIAG_SIDE", 48)
    quick = DIAG_SAMPLING.model_copy(update={"steps": 4, "scheduler": "dpm++"})
    monkeypatch.setattr("inandout.stages.pools.config.DIAG_SAMPLING", quick)
    pool = DdpmPoolConfig(
        data=DataConfig(data=str(tiny)), scenario=ShotConfig(shot="zero"), base=BaseConfig(base=str(inpainting_base)),
        n_aug=3,
    )  # fmt: skip
    samples = augment_inpaint(diag(pool)).samples
    size = Geometry(width=48, height=48, fit="stretch")
    real = [
        fit_mask(read_mask(row.mask), size)
        for row in read_manifest(tiny)
        if (row.split, row.label) == ("train", 1) and row.mask
    ]
    assert [sample.prompt for sample in samples[:2]] != [samples[0].prompt] * 2
    for sample in samples:
        assert sample.mask is not None
        mask = read_mask(sample.mask)
        assert any(np.array_equal(mask, one) for one in real)
        assert read_image(sample.image).shape == (48, 48, 3)

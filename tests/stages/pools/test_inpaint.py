from pathlib import Path

import mlflow
import numpy as np
import pytest

from inandout.__main__ import main
from inandout.data.images import read_image, read_mask
from inandout.data.manifest import digest, read_manifest, write_manifest
from inandout.diffusion.base.base import weights_fingerprint
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.sample.presets import DRAWING_PRESETS
from inandout.errors import InputError
from inandout.mixing import mix
from inandout.stages.config import FinetuneConfig
from inandout.stages.finetune import choose_instances, finetune
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import (
    AugmentConfig,
    DdpmPoolConfig,
    DrawingConfig,
    InpaintPoolConfig,
    finetune_config,
)
from inandout.stages.pools.inpaint import _on_object
from inandout.stages.pools.pool import Pool, open_pool
from tests.conftest import SIDE
from tests.diffusion.tiny import inpainting_pipeline
from tests.stages.test_finetune import QUICK

pytestmark = pytest.mark.slow


@pytest.fixture
def adapter(tiny: Path, tiny_base: Path, project: Path) -> Path:
    return finetune(FinetuneConfig.from_flat(**{"data": str(tiny), "base": str(tiny_base)} | QUICK)).adapter


def make(tiny: Path, base: Path, adapter: Path | str, **changes: object) -> Pool:
    quick = {"steps": 2, "guidance": 2, "scheduler": "dpm++", "sample_batch": 4, "n_aug": 5, "shot": "zero"}
    where = {"data": str(tiny), "base": str(base), "adapter": str(adapter), "width": SIDE, "height": SIDE}
    return augment(AugmentConfig.from_flat(**{"source": "inpaint"} | where | quick | changes))


def test_inpainting_changes_pixels_inside_the_mask_only(tiny: Path, tiny_base: Path, adapter: Path) -> None:
    pool = make(tiny, tiny_base, adapter, alpha=0.5)
    trained = load_adapter(adapter)
    parts = {digest(sample.image): sample for sample in read_manifest(tiny)}
    for sample in pool.samples:
        assert (sample.origin, sample.label, sample.split, sample.alpha) == ("inpaint", 1, "train", 0.5)
        assert set(sample.sources) == {sample.sources[0], *trained.meta.sources}
        assert sample.mask is not None
        part, mask = parts[sample.sources[0]], read_mask(sample.mask)
        assert (part.label, part.group) == (0, sample.group)
        before, after = read_image(part.image), read_image(sample.image)
        assert mask.any()
        assert np.array_equal(after[~mask], before[~mask])
        assert not np.array_equal(after[mask], before[mask])
    assert len({sample.sources[0] for sample in pool.samples}) == 5


def test_the_mix_has_no_leak_and_a_larger_pool_starts_with_the_smaller_one(
    tiny: Path, tiny_base: Path, adapter: Path
) -> None:
    pool, larger = make(tiny, tiny_base, adapter), make(tiny, tiny_base, adapter, n_aug=7)
    mixed = mix(read_manifest(tiny), [], pool.samples, 5, 1.0)
    assert sum(sample.origin == "inpaint" for sample in mixed) == 5
    assert [digest(s.image) for s in larger.samples[:5]] == [digest(s.image) for s in pool.samples]


def test_the_unchanged_base_draws_without_an_adapter(tiny: Path, tiny_base: Path, project: Path) -> None:
    pool = make(tiny, tiny_base, "none", prompts="background cracked")
    assert {(sample.adapter, sample.alpha, len(sample.sources)) for sample in pool.samples} == {("", None, 1)}
    with pytest.raises(InputError, match=r"adapter = none: .*give prompts"):
        make(tiny, tiny_base, "none")


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_an_inpainting_base_draws_without_an_adapter(tiny: Path, inpainting_base: Path, project: Path) -> None:
    arguments = ["--source", "inpaint", "--adapter", "none", "--prompts", "background cracked", "--n-aug", 3]
    arguments += ["--steps", 2, "--width", SIDE, "--height", SIDE, "--shot", "zero", "--data", tiny]
    arguments += ["--base", inpainting_base]
    assert command("augment", *arguments) == 0
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    pool, parts = open_pool(run.info.run_id).samples, {digest(s.image): s.image for s in read_manifest(tiny)}
    assert len(pool) == 3
    for sample in pool:
        assert (sample.adapter, sample.base) == ("", weights_fingerprint(inpainting_pipeline()))
        assert sample.mask is not None
        before, after, mask = read_image(parts[sample.sources[0]]), read_image(sample.image), read_mask(sample.mask)
        assert np.array_equal(after[~mask], before[~mask])
        assert not np.array_equal(after[mask], before[mask])


def test_pretraining_and_another_bases_adapter_refuse_an_inpainting_base(
    tiny: Path, inpainting_base: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", tiny, "--base", inpainting_base, "--shot", "zero", "--width", SIDE, "--height", SIDE]
    assert command("pretrain", "--start", inpainting_base) == 2
    assert "is not a base that pretrain wrote" in capsys.readouterr().err
    assert command("augment", "--source", "inpaint", "--adapter", adapter, *data) == 2
    assert "the adapter was trained on base" in capsys.readouterr().err


def test_real_masks_require_real_defects(tiny: Path, tiny_base: Path, project: Path) -> None:
    given = {"masks": "real", "prompts": "background cracked"}
    with pytest.raises(InputError, match=r"masks = real: .*shot = zero.*masks=perlin"):
        make(tiny, tiny_base, "none", **given)
    known = [s.mask for s in read_manifest(tiny) if s.split == "train" and s.label == 1 and s.mask]
    pool = make(tiny, tiny_base, "none", shot="full", val_share=0, **given)
    real = {read_mask(path).tobytes() for path in known}
    assert {read_mask(sample.mask).tobytes() for sample in pool.samples if sample.mask} <= real


def test_a_pool_of_one_kind_learns_it_and_takes_its_masks(tiny: Path, tiny_base: Path, project: Path) -> None:
    samples = [
        sample.model_copy(update={"defect": ("crack", "pit")[number % 2] if sample.label else ""})
        for number, sample in enumerate(read_manifest(tiny))
    ]
    write_manifest(samples, tiny)
    given = {"shot": "full", "val_share": 0, "masks": "real", "prompts": "background pit"}
    pool = make(tiny, tiny_base, "none", kind="pit", **given)
    assert {sample.defect for sample in pool.samples} == {"pit"}
    pits = [s for s in samples if (s.split, s.defect) == ("train", "pit")]
    shown = {read_mask(sample.mask).tobytes() for sample in pool.samples if sample.mask}
    assert shown <= {read_mask(s.mask).tobytes() for s in pits if s.mask}
    with pytest.raises(InputError, match=r"kind = dent: .*give one of crack \(\d\), pit \(\d\)"):
        make(tiny, tiny_base, "none", kind="dent", **given)
    learned = finetune_config(InpaintPoolConfig.from_flat(shot="full", kind="pit", guidance_mode="plain"))
    assert {sample.defect for sample in choose_instances(samples, learned)} == {"pit"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shot": "zero"}, "shot=zero uses no real defect"),
        ({"guidance_mode": "composed"}, "composed guidance takes the defect from the base"),
        ({"masks": "perlin"}, "masks = perlin have no kind"),
        ({"source": "ddpm"}, "source = ddpm does not use it"),
    ],
)
def test_a_kind_is_refused_where_it_is_not_drawn(changes: dict[str, str], message: str) -> None:
    given = {"source": "inpaint", "kind": "pit", "shot": "full", "guidance_mode": "plain"}
    resolved = AugmentConfig.from_flat(**given).resolved()
    assert resolved.masks == "real", "the default of a kind"
    with pytest.raises(InputError, match=f"kind = pit: .*{message}"):
        AugmentConfig.from_flat(**given | changes).resolved()


def test_inpainting_has_a_lower_default_alpha() -> None:
    preset, zero = DRAWING_PRESETS["embedded", "zero", "plain"], {"shot": "zero", "guidance_mode": "plain"}
    assert DdpmPoolConfig.from_flat(**zero).resolved().drawing.alpha == preset.whole.alpha
    assert InpaintPoolConfig.from_flat(**zero).resolved().drawing.alpha == preset.inpaint.alpha < 0.5
    assert InpaintPoolConfig.from_flat(**zero, alpha=0.7).resolved().drawing.alpha == 0.7
    assert InpaintPoolConfig.from_flat(**zero, adapter="none", prompts="a").resolved().drawing.alpha is None
    with pytest.raises(InputError, match="composed: needs an adapter"):
        InpaintPoolConfig(drawing=DrawingConfig(adapter="none", prompts="a", guidance_mode="composed")).resolved()


def test_drawn_masks_hold_what_differs_from_the_good_part(tiny: Path, tiny_base: Path, adapter: Path) -> None:
    pool = make(tiny, tiny_base, adapter, guidance_mode="composed", prompts="skt background cracked")
    parts = {digest(sample.image): sample.image for sample in read_manifest(tiny)}
    for sample in pool.samples:
        assert sample.mask is not None
        before, after, mask = read_image(parts[sample.sources[0]]), read_image(sample.image), read_mask(sample.mask)
        change = np.abs(after.astype(int) - before).max(axis=2)
        assert (change[~mask] < 6).all()
        assert mask.any()
    with pytest.raises(InputError, match="masks = drawn: needs guidance_mode = composed"):
        make(tiny, tiny_base, adapter, guidance_mode="plain", masks="drawn")


@pytest.mark.parametrize("masks", ["drawn", "perlin", "real"])
def test_a_window_is_drawn_at_the_base_size_and_pasted_on_the_part(
    masks: str, tiny: Path, tiny_base: Path, project: Path
) -> None:
    shot = {"shot": "full", "val_share": 0} if masks == "real" else {}
    where = {"data": str(tiny), "base": str(tiny_base), "window": 16}
    adapter = finetune(FinetuneConfig.from_flat(**where | QUICK | shot)).adapter
    given = {"masks": masks, "guidance_mode": "composed", "prompts": "skt background cracked", "window": 24, "n_aug": 3}
    pool = make(tiny, tiny_base, adapter, **given | shot)
    parts = {digest(sample.image): sample.image for sample in read_manifest(tiny)}
    for sample in pool.samples:
        assert sample.mask is not None
        before, after, mask = read_image(parts[sample.sources[0]]), read_image(sample.image), read_mask(sample.mask)
        change = np.abs(after.astype(int) - before).max(axis=2)
        rows, columns = np.nonzero(change)
        assert 0 < np.ptp(rows) < 23 and 0 < np.ptp(columns) < 23, "1 px of an edge where the image goes on is kept"
        assert (change[~mask] < (6 if masks == "drawn" else 1)).all() and change[mask].any()


def test_a_drawn_mask_stays_on_the_object() -> None:
    mask, foreground = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    mask[0], foreground[:, 0] = True, True
    assert np.array_equal(_on_object(mask, foreground), mask & foreground)
    assert np.array_equal(_on_object(mask, None), mask)
    foreground[0, 0] = False
    assert np.array_equal(_on_object(mask, foreground), foreground)

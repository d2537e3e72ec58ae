import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from inandout.data.images import read_image, read_mask, write_image
from inandout.data.manifest import digest, read_manifest
from inandout.diffusion.finetune.dreambooth import chosen_optimiser, dreambooth
from inandout.diffusion.lora.safetensors_io import load_adapter
from inandout.diffusion.prompts import encode_prompts
from inandout.errors import InputError
from inandout.hardware import find_device
from inandout.stages import finetune as stage
from inandout.stages.config import FinetuneConfig
from inandout.stages.finetune import Finetuned, choose_instances, finetune, finetune_fingerprint
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from tests.conftest import SIDE

pytestmark = pytest.mark.slow

QUICK = {
    "width": SIDE, "height": SIDE, "network_dim": 2, "network_alpha": 1, "conv_dim": 1, "epochs": 1, "repeats": 1,
    "batch_size": 4, "n_prior": 3, "n_negatives": 6, "shot": "zero",
}  # fmt: skip


def run(tiny: Path, tiny_base: Path, **changes: object) -> Finetuned:
    return finetune(FinetuneConfig.from_flat(**{"data": str(tiny), "base": str(tiny_base)} | QUICK | changes))


def test_an_adapter_records_its_sources_prompts_and_base(tiny: Path, tiny_base: Path, project: Path) -> None:
    result = run(tiny, tiny_base)
    meta = load_adapter(result.adapter).meta
    negatives = {digest(s.image) for s in read_manifest(tiny) if s.split == "train" and s.label == 0}
    assert len(meta.sources) == 6
    assert set(meta.sources) < negatives
    assert (meta.instance_prompt, meta.prior_prompt, meta.clip_skip) == ("skt background", "background", 1)
    logged = mlflow.get_run(result.run_id)
    assert meta.base == logged.data.params["base_fingerprint"]
    assert meta.code == logged.data.tags["inandout.code"]
    assert meta.commit == logged.data.tags.get("mlflow.source.git.commit", "")
    assert logged.data.params["used_optimiser"] == chosen_optimiser("auto", find_device())
    assert int(logged.data.params["unet_conv3x3_modules"]) > 0
    assert {"adapter", "instances.png", "prior.png"} <= {
        artifact.path for artifact in mlflow.MlflowClient().list_artifacts(result.run_id)
    }


def test_an_inpainting_base_is_fine_tuned_and_draws_whole_images_and_inside_masks(
    tiny: Path, inpainting_base: Path, project: Path
) -> None:  # fmt: skip
    result = run(tiny, inpainting_base)
    tags = mlflow.get_run(result.run_id).data.tags
    assert (tags["inandout.device"], tags["inandout.precision"]) == ("cpu", "fp32")
    shared = {key: value for key, value in QUICK.items() if key in AugmentConfig.options()}
    shared |= {"data": str(tiny), "base": str(inpainting_base), "adapter": str(result.adapter), "steps": 2, "n_aug": 2}
    for source in ("ddpm", "inpaint"):
        pool = augment(AugmentConfig.from_flat(**shared | {"source": source}))
        assert {(sample.origin, sample.adapter) for sample in pool.samples} == {
            (source, load_adapter(result.adapter).fingerprint)
        }


def test_an_adapter_is_reused_and_another_seed_trains_another(
    tiny: Path, tiny_base: Path, project: Path
) -> None:  # fmt: skip
    first = run(tiny, tiny_base)
    assert run(tiny, tiny_base).run_id == first.run_id
    assert run(tiny, tiny_base, seed=1).run_id != first.run_id


def test_prior_images_are_generated_once(
    tiny: Path, tiny_base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    run(tiny, tiny_base)
    monkeypatch.setattr("inandout.diffusion.sample.generate.sample", lambda *_, **__: pytest.fail("drew again"))
    run(tiny, tiny_base, epochs=2)


def test_images_are_encoded_once(
    tiny: Path, tiny_base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    run(tiny, tiny_base)
    monkeypatch.setattr("inandout.stages.latent_cache.encode", lambda *_: pytest.fail("was encoded again"))
    run(tiny, tiny_base, epochs=2)
    kept = list((project / ".inandout" / "latents").rglob("*.safetensors"))
    assert len(kept) == 6 + 3


def test_training_and_drawing_use_the_same_layer_of_the_text_encoder(
    tiny: Path, tiny_base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    read: dict[str, set[int]] = {"finetune.dreambooth": set(), "sample.guidance": set()}
    for module, layers in read.items():
        monkeypatch.setattr(f"inandout.diffusion.{module}.encode_prompts", _noting(layers))
    shared = {key: value for key, value in QUICK.items() if key in AugmentConfig.options()}
    result = run(tiny, tiny_base, clip_skip=2, n_prior=0)
    assert read == {"finetune.dreambooth": {2}, "sample.guidance": set()}
    augment(
        AugmentConfig.from_flat(
            **shared | {"source": "ddpm", "data": str(tiny), "base": str(tiny_base), "adapter": str(result.adapter)}
            | {"steps": 2, "n_aug": 3}
        )
    )  # fmt: skip
    assert read["sample.guidance"] == {2}


def _noting(layers: set[int]) -> Any:
    def noted(pipeline: Any, prompts: Any, clip_skip: int = 1) -> Any:
        layers.add(clip_skip)
        return encode_prompts(pipeline, prompts, clip_skip)

    return noted


TWO = """
import sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from tests.stages.test_finetune import run
run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.torture
def test_two_processes_log_one_run_with_the_losses_of_one_process(
    tiny: Path, tiny_base: Path, project: Path, tmp_path: Path
) -> None:  # fmt: skip
    script, root = tmp_path / "two.py", str(Path(__file__).parents[2])
    script.write_text(TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with (tmp_path / "log").open("w") as log:  # processes that outlive a timeout would keep a pipe open
        subprocess.run(
            [*launch, str(script), str(tiny), str(tiny_base)], check=True, timeout=300, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": root},
        )  # fmt: skip
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert [run.info.status for run in runs] == ["FINISHED"]
    of_one = mlflow.get_run(run(tiny, tiny_base, fresh=True).run_id).data.metrics
    for name in ("loss", "instance_loss", "prior_loss", "gradient_norm", "instance_seen", "prior_seen"):
        assert runs[0].data.metrics[name] == pytest.approx(of_one[name], rel=1e-4), name


def test_an_interrupted_training_resumes(
    tiny: Path, tiny_base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def dies(path: Path, adapter: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stage, "save_adapter", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tiny_base)
    went_on = []

    def watched(*arguments: Any, **named: Any) -> Any:
        went_on.append(named["checkpoint"].exists())
        return dreambooth(*arguments, **named)

    monkeypatch.setattr("inandout.diffusion.finetune.train_adapter.dreambooth", watched)
    resumed = load_adapter(run(tiny, tiny_base).adapter)
    uninterrupted = load_adapter(run(tiny, tiny_base, fresh=True).adapter)
    assert went_on == [True, False]
    assert resumed.fingerprint == uninterrupted.fingerprint


def test_zero_shot_trains_on_negatives_and_other_shots_on_positives(tiny: Path) -> None:
    samples = read_manifest(tiny)
    few_good = FinetuneConfig.from_flat(shot="zero", n_negatives=5)
    assert {sample.label for sample in choose_instances(samples, few_good)} == {0}
    assert len(choose_instances(samples, FinetuneConfig.from_flat(shot="zero", n_negatives=500))) == 20
    full = choose_instances(samples, FinetuneConfig.from_flat(shot="full"))
    assert {sample.label for sample in full} == {1}
    assert {sample.split for sample in full} == {"train"}
    assert len(full) == 8


def test_one_kind_of_defect_is_learned_alone(tiny: Path) -> None:
    samples = [
        sample.model_copy(update={"defect": ("crack", "pit", "")[number % 3] if sample.label else ""})
        for number, sample in enumerate(read_manifest(tiny))
    ]
    config = FinetuneConfig.from_flat(shot="full", kind="pit")
    chosen = choose_instances(samples, config)
    assert {(sample.defect, sample.split) for sample in chosen} == {("pit", "train")}
    everything = choose_instances(samples, FinetuneConfig.from_flat(shot="full"))
    assert chosen == [sample for sample in everything if sample.defect == "pit"]
    with pytest.raises(
        InputError, match=r"kind = cracks: .*; give one of crack \(\d\), pit \(\d\); did you mean 'crack'"
    ):
        choose_instances(samples, FinetuneConfig.from_flat(shot="full", kind="cracks"))
    with pytest.raises(InputError, match="the column defect of the manifest is empty"):
        choose_instances(read_manifest(tiny), FinetuneConfig.from_flat(shot="full", kind="crack"))
    with pytest.raises(ValueError, match="kind = crack: shot=zero trains on good parts only"):
        FinetuneConfig.from_flat(shot="zero", kind="crack")


def test_images_of_different_shapes_are_trained_in_buckets(tiny: Path, tiny_base: Path, project: Path) -> None:
    for number in range(0, 20, 2):
        path = tiny.parent / f"{number}.png"
        write_image(path, read_image(path).repeat(2, axis=1))
        write_image(tiny.parent / f"{number}_mask.png", np.zeros((SIDE, 2 * SIDE), bool))
    result = run(tiny, tiny_base, fit="bucket", width=64, n_prior=16)
    assert mlflow.get_run(result.run_id).info.status == "FINISHED"
    kept = (project / ".inandout" / "generated").rglob("*.png")
    assert {read_image(path).shape[:2] for path in kept} == {(32, 64), (64, 32)}


def test_mask_weight_changes_the_adapter_and_is_logged(tiny: Path, tiny_base: Path, project: Path) -> None:
    changes = {"shot": "full", "n_prior": 0}
    plain = run(tiny, tiny_base, **changes)
    weighted = run(tiny, tiny_base, mask_weight=5, **changes)
    assert load_adapter(weighted.adapter).fingerprint != load_adapter(plain.adapter).fingerprint
    assert float(mlflow.get_run(weighted.run_id).data.params["mask_weight"]) == 5


def test_a_changed_mask_is_another_training(tiny: Path) -> None:
    config = FinetuneConfig.from_flat(data=str(tiny), shot="full", mask_weight=5)
    samples = read_manifest(tiny)
    before = finetune_fingerprint(config, samples)
    mask = tiny.parent / "20_mask.png"
    write_image(mask, ~read_mask(mask))
    assert finetune_fingerprint(config, samples) != before


@pytest.mark.parametrize("changes", [{}, {"window": 16}, {"fit": "stretch"}, {"fit": "bucket", "width": 64}])
def test_masks_have_the_geometry_of_the_images(
    tiny: Path, tiny_base: Path, project: Path, changes: dict[str, object]
) -> None:  # fmt: skip
    for number in range(20, 28):
        for name in (f"{number}.png", f"{number}_mask.png"):
            path = tiny.parent / name
            image = read_image(path)
            write_image(path, np.pad(image, ((0, 0), (SIDE, SIDE), (0, 0)), mode="edge"))
    values = {"data": str(tiny), "base": str(tiny_base), "shot": "full", "mask_weight": 5}
    config = FinetuneConfig.from_flat(**QUICK | values | changes).resolved()
    inputs = stage._load_inputs(config.model_copy(update={"n_prior": 0}), read_manifest(tiny))
    shown = [(image, mask) for image, mask in zip(inputs.images, inputs.masks, strict=True) if mask is not None]
    assert shown
    for image, mask in shown:
        assert mask.shape == image.shape[:2]
        assert image[mask].mean() > image[~mask].mean() + 40


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"instance_prompt": "crack " * 40}, "shorten it"),
        ({"clip_skip": 5}, "clip_skip = 5"),
        ({"base": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_invalid_options_raise_an_error(
    tiny: Path, tiny_base: Path, project: Path, changes: dict[str, object], sentence: str
) -> None:  # fmt: skip
    with pytest.raises(InputError, match=sentence):
        run(tiny, tiny_base, **changes)


def test_a_weight_of_masks_without_defects_is_refused_before_the_work() -> None:
    with pytest.raises(ValueError, match="shot=zero trains on good parts only"):
        FinetuneConfig.from_flat(shot="zero", mask_weight=5)

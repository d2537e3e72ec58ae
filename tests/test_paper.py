"""The constants of the paper (sections 4 and 5, and its configuration files) and where they take effect.

Those of MemSeg are in tests/memseg, those of each scenario in tests/diffusion/finetune/test_presets.py.
"""

from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora.layer import LoraLayer

from inandout.classifier.backbone import DefectNet, build_classifier
from inandout.classifier.config import BackboneConfig, FitConfig
from inandout.classifier.training import fit
from inandout.data.config import Shot
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.dreambooth import MAX_GRADIENT_NORM, build_optimiser
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import add_adapter
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.snr_weighting import GAMMA
from inandout.memseg.config import MemSegConfig
from inandout.memseg.sources import N_OPERATIONS
from inandout.mixing import split_counts
from inandout.reporting.paper_results import PUBLISHED
from inandout.stages.config import FinetuneConfig
from inandout.stages.experiment.config import PROFILES
from tests.diffusion.tiny import tiny_pipeline

PAPER = PROFILES["paper"]


def test_the_adapter_has_ranks_32_and_4_and_counts_a_half_and_a_quarter() -> None:
    pipeline = tiny_pipeline()
    add_adapter(pipeline, AdapterConfig(), seed=0)
    found = {
        (layer.lora_A["default"].weight.shape[2:] == (3, 3), layer.r["default"], layer.scaling["default"])
        for model in (pipeline.unet, pipeline.text_encoder)
        for layer in model.modules()
        if isinstance(layer, LoraLayer)
    }
    assert found == {(False, 32, 16 / 32), (True, 4, 1 / 4)}


def test_an_adapter_is_trained_as_in_the_paper() -> None:
    config = DreamBoothConfig()
    assert (config.batch_size, config.repeats, config.prior_weight) == (12, 10, 1.0)
    assert (config.schedule_epochs, config.restarts) == (50, 3)
    assert (MAX_GRADIENT_NORM, GAMMA) == (1.0, 5.0)


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_the_optimiser_of_an_adapter_has_the_usual_constants(name: Any) -> None:
    (group,) = build_optimiser([torch.nn.Parameter(torch.zeros(3))], 1e-5, name).param_groups
    assert (group["lr"], tuple(group["betas"]), group["eps"], group["weight_decay"]) == (1e-5, (0.9, 0.999), 1e-8, 0.01)


def test_the_prompts_are_those_of_the_paper() -> None:
    config = FinetuneConfig()
    assert (config.instance_prompt, config.prior_prompt) == ("skt background", "background")


def test_stable_diffusion_is_sampled_as_in_the_paper() -> None:
    config = SamplingConfig().resolved("sd")
    assert (config.guidance, config.steps, config.scheduler) == (7.5, 50, "ddim")


def test_half_of_the_synthetic_images_are_of_each_kind() -> None:
    assert [split_counts(n_aug, 0.5) for n_aug in (80, 100, 120)] == [(40, 40), (50, 50), (60, 60)]
    assert PAPER["n_augs"] == "80,100,120"


def test_memseg_has_its_own_constants() -> None:
    config = MemSegConfig()
    assert (config.opacity_min, config.opacity_max) == (0.15, 1.0)
    assert (config.texture_share, config.grid, N_OPERATIONS) == (0.5, 8, 3)


def test_the_classifier_is_trained_as_in_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (PAPER["width"], PAPER["height"], PAPER["seeds"]) == (200, 600, "0,1,2,3")
    assert (PAPER["epochs"], PAPER["batch_size"], PAPER["optimiser"], PAPER["lr"]) == (50, 5, "sgd", 0.01)
    model = build_classifier(BackboneConfig(), 0)
    before = model.last.bias.detach().clone()
    steppers: list[torch.optim.SGD] = []
    batches: list[int] = []
    features = DefectNet.features

    class Watched(torch.optim.SGD):
        def step(self, *given: Any, **named: Any) -> Any:
            steppers.append(self)
            return super().step(*given, **named)

    def watched_features(model: DefectNet, images: torch.Tensor) -> torch.Tensor:
        batches.append(len(images))
        return features(model, images)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    monkeypatch.setattr(DefectNet, "features", watched_features)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    labels = np.array([0] * 15 + [1] * 5)
    config = FitConfig(epochs=1, batch_size=PAPER["batch_size"], optimiser="sgd", lr=PAPER["lr"])
    fit(model, pixels, labels, config, seed=0)
    (group,) = steppers[0].param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"], group["dampening"]) == (0.01, 0, 0, 0)
    assert (batches, len(steppers)) == ([5, 5], 2)
    assert not torch.equal(before, model.last.bias)


AVERAGES: dict[Shot, dict[str, float]] = {
    "zero": {"MemSeg": 0.471, "DDPM": 0.508, "In&Out": 0.573},
    "few": {"MemSeg": 0.562, "DDPM": 0.547, "In&Out": 0.561},
    "full": {"MemSeg": 0.751, "DDPM": 0.764, "In&Out": 0.768},
}
"""Mean AP over the three `n_aug`, as the paper's tables print it."""


@pytest.mark.parametrize("shot", AVERAGES)
def test_the_published_numbers_have_the_averages_of_the_paper(shot: Shot) -> None:
    for source, average in AVERAGES[shot].items():
        cells = [PUBLISHED[shot, source, n_aug]["ap"].mean for n_aug in (80, 100, 120)]
        assert np.mean(cells) == pytest.approx(average, abs=0.0008), source


def test_the_best_published_numbers_are_those_of_the_abstract_and_the_text() -> None:
    best = {shot: max(cell["ap"].mean for key, cell in PUBLISHED.items() if key[0] == shot) for shot in AVERAGES}
    assert best == {"zero": 0.626, "few": 0.593, "full": 0.782}

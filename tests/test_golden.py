"""The same numbers as before, at fixed seeds on embedded data: `golden.json` holds what each function below gives.

`python -m tests.test_golden` writes the file anew: only for a change that is meant to change numbers, which its commit
message then says. Integers, names and captions are compared exactly. Floats have room for another order of sums.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import BackboneConfig, FitConfig
from inandout.classifier.frequency_sampler import FrequencySampler
from inandout.classifier.training import fit, predict
from inandout.data.config import ShotConfig
from inandout.data.images import ImageArray
from inandout.data.manifest import Sample, digest
from inandout.data.splits import cut_validation, split_test, take_shot
from inandout.data.surfaces import KINDS, SURFACES, draw_surface
from inandout.diffusion.base.base import Base, open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.dreambooth import dreambooth
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.finetune.dreambooth_dataset import make_batches as plan_lesson
from inandout.diffusion.lora.adapter import Adapter, AdapterMeta
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import add_adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.pretrain.captions import caption_of
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.inpaint import Canvas
from inandout.diffusion.sample.sampler import image_seed, sample
from inandout.diffusion.sample.vae_roundtrip import round_trip
from inandout.diffusion.vae import encode
from inandout.evaluation.conformal_filter import RealFeatures, fit_thresholds
from inandout.evaluation.distances import frechet_distance, kernel_distance
from inandout.evaluation.metrics import Scored, evaluate
from inandout.evaluation.operating_points import choose_point, parse_rule
from inandout.evaluation.paired_test import METRICS, paired_difference
from inandout.memseg.anomaly import synthesise
from inandout.memseg.config import MaskConfig, MemSegConfig
from inandout.memseg.plan import plan as plan_memseg
from inandout.memseg.texture_bank import ProceduralTextures
from inandout.mixing import mix
from tests.diffusion.tiny import BASE, tiny_pipeline

GOLDEN = Path(__file__).with_name("golden.json")
PROMPTS = ("skt background", "background")
LEVEL = 0.5
"""Grey levels of 255 that a mean over a block of pixels may differ by."""


def blocks(image: ImageArray) -> list[float]:
    """Mean grey levels of the 4x4 blocks of an image (H, W, 3)."""
    rows = np.array_split(image.mean(axis=2), 4)
    return [float(part.mean()) for row in rows for part in np.array_split(row, 4, axis=1)]


def finetune(base: Base, images: list[ImageArray], config: AdapterConfig, lr: float) -> tuple[Any, Adapter]:
    """Losses and gradient norms of a few steps on half instance and half prior images, and the adapter."""
    add_adapter(base.pipeline, config, seed=0)
    latents = encode(base.pipeline.vae, np.stack(images))
    shown = [Example(latent, prior=place % 2 == 1) for place, latent in enumerate(latents)]
    steps: list[dict[str, float]] = []
    tensors = dreambooth(
        base, DreamBoothDataset(shown, *PROMPTS), epochs=2, lr=lr, seed=3,
        config=DreamBoothConfig(batch_size=4, repeats=2, schedule_epochs=4, prior_weight=0.7),
        on_step=lambda step, values: steps.append({name: values[name] for name in sorted(values)}),
    )  # fmt: skip
    meta = AdapterMeta(
        config=config, base=base.fingerprint, instance_prompt=PROMPTS[0], prior_prompt=PROMPTS[1],
        clip_skip=1, sources=(), code="", seed=3,
    )  # fmt: skip
    return steps, Adapter(tensors, meta)


def norms(adapter: Adapter) -> dict[str, float]:
    """Of all As, and of all Bs, of UNet and text encoder."""
    found: dict[str, float] = {}
    for name, tensor in adapter.tensors.items():
        part = f"{name.split('.')[0]} {name.split('.')[-2]}"
        found[part] = float(np.hypot(found.get(part, 0.0), float(tensor.norm())))
    return found


def finetuning_of_a_tiny_base() -> Any:
    images = [draw_surface(32, 32, seed, "pitted" if seed % 2 == 0 else "").image for seed in range(6)]
    config = AdapterConfig(network_dim=4, network_alpha=2, conv_dim=2, conv_alpha=1)
    steps, adapter = finetune(Base(tiny_pipeline(), BASE, "sd"), images, config, lr=0.01)
    return {"steps": steps, "norms": norms(adapter)}


def finetuning_merging_and_drawing_with_the_embedded_base() -> Any:
    base = open_base(BaseConfig())
    images = [draw_surface(32, 32, seed, surface="brushed", product=5).image for seed in range(4)]
    steps, adapter = finetune(base, images, AdapterConfig(), lr=2e-3)
    plain = open_base(BaseConfig())
    merged = merge(plain.pipeline, plain.fingerprint, adapter, 0.6)
    seeds = [image_seed(7, number) for number in range(2)]
    config = SamplingConfig(steps=8).resolved("embedded")
    drawn = next(iter(sample(merged, ["skt background cracked"] * 2, seeds, width=32, height=32, config=config)))
    levels = [blocks(each) for each in drawn.images]
    return {"steps": steps, "norms": norms(adapter), "seeds": seeds, "levels": levels}


def images_of_the_embedded_base() -> Any:
    base = open_base(BaseConfig())
    made: dict[str, Any] = {}
    for scheduler, steps in (("dpm++", 20), ("ddim", 10)):
        config = SamplingConfig.model_validate({"scheduler": scheduler, "steps": steps}).resolved("embedded")
        prompts = ["background scratched"]
        drawn = next(iter(sample(base.pipeline, prompts, [11], width=64, height=64, config=config)))
        made[scheduler] = blocks(drawn.images[0])
    surface = draw_surface(64, 64, 3, "stained", product=1)
    canvas = Canvas(draw_surface(64, 64, 3, product=1).image[None], surface.mask[None])
    config = SamplingConfig(steps=8).resolved("embedded")
    on = sample(base.pipeline, ["background stained"], [4], width=64, height=64, config=config, canvas=canvas)
    made["inpaint"] = blocks(next(iter(on)).images[0])
    made["round trip"] = blocks(round_trip(base.pipeline, canvas.images)[0])
    return {"levels": made}


def training_of_the_classifier() -> Any:
    labels = np.array([0] * 10 + [1] * 6)
    drawn = [draw_surface(32, 32, seed, "cracked" if label else "") for seed, label in enumerate(labels)]
    model, pixels = build_classifier(BackboneConfig(), 0), np.stack([one.image for one in drawn])
    history = fit(model, pixels, labels, FitConfig(epochs=2, batch_size=6, optimiser="sgd", lr=0.001), seed=0)
    return {"loss": [epoch["loss"] for epoch in history], "logits": predict(model, pixels).tolist()}


def order_of_training() -> Any:
    always = np.zeros(20, bool)
    always[:2] = True
    sampler = FrequencySampler(np.array([0] * 14 + [1] * 6), 1, always)
    shown = [Example(torch.zeros(1, 8, 8 * (1 + place % 2)), prior=place > 4) for place in range(9)]
    return {"classifier": [sampler.epoch().tolist() for _ in range(3)], "dreambooth": plan_lesson(shown, 2, 2, 4, 1)}


def surfaces() -> Any:
    made = {}
    for number, kind in enumerate(("", *KINDS)):
        drawn = draw_surface(48, 64, number, kind, SURFACES[number % len(SURFACES)])
        words = [drawn.colour, drawn.lighting, drawn.size, drawn.contrast, drawn.count]
        made[kind] = {"words": words, "area": int(drawn.mask.sum()), "levels": blocks(drawn.image)}
    return made


def captions() -> Any:
    rng = np.random.default_rng(0)
    return [caption_of(draw_surface(32, 32, seed, ("", *KINDS)[seed % 7]), rng) for seed in range(28)]


def memseg() -> Any:
    textures = ProceduralTextures()
    made: dict[str, Any] = {}
    configs = {
        "default": MemSegConfig(),
        "in colour": MemSegConfig(keep_grey=False),
        "texture": MemSegConfig(texture_share=1),
        "structure": MemSegConfig(texture_share=0, grid=4),
        "bright": MemSegConfig(mask=MaskConfig(foreground_threshold=100, min_area=0.02, max_area=0.1)),
    }
    for name, config in configs.items():
        changed, mask = synthesise(draw_surface(64, 96, 2).image, 5 + len(made), config, textures)
        made[name] = {"area": int(mask.sum()), "levels": blocks(changed)}
    return {"anomalies": made, "plan": plan_memseg(4, 6, 2)}


def real_samples() -> list[Sample]:
    labels = [0] * 20 + [1] * 8
    return [
        Sample(image=Path(f"/data/{number}.png"), label=label, group=f"part {number // 2}")
        for number, label in enumerate(labels)
    ]


def parts_of_the_data() -> Any:
    split = take_shot(cut_validation(split_test(real_samples(), 0.3, 1), 0.25, 2), ShotConfig(shot="few", n_shot=2), 3)
    return {part: [s.image.stem for s in split if s.split == part] for part in ("train", "val", "test")}


def mixture(tmp_path: Path) -> Any:
    def files(name: str, count: int, **given: Any) -> list[Sample]:
        made = []
        for number in range(count):
            image = tmp_path / f"{name}{number}.png"
            image.write_text(image.stem)  # only its digest is asked for
            made.append(Sample.model_validate({"image": image, "label": 1, "split": "train", **given}))
        return made

    real = files("good", 3, label=0) + files("bad", 2)
    source = {"sources": (digest(real[0].image),)}
    mixed = mix(
        real, files("memseg", 9, origin="memseg", **source), files("ddpm", 9, origin="ddpm", **source), 9, 0.35,
        files("roundtrip", 9, origin="roundtrip", **source | {"label": 0}),
    )  # fmt: skip
    return [sample.image.stem for sample in mixed]


def scored(seed: int, strength: float) -> Scored:
    labels = np.array([1] * 20 + [0] * 60, np.int64)
    return Scored(labels, np.random.default_rng(seed).normal(size=80) + strength * labels)


def judgement() -> Any:
    test, val = scored(0, 1.0), scored(1, 1.0)
    goods = Scored(val.labels[20:], val.logits[20:])
    evaluated = {name: evaluate(test, part, 0.05, 0) for name, part in (("full", val), ("zero", goods))}
    sides = [[scored(seed, strength) for seed in range(3)] for strength in (1.2, 0.8)]
    rules = [parse_rule(rule) for rule in ("recall>=0.7", "fpr<=0.1")]
    points = {rule.name: choose_point(rule, val, 0.05) for rule in rules}
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(count, 4)) + shift for count, shift in ((30, 0.0), (12, 2.0), (25, 0.1))]
    return {
        "values": {name: found.values for name, found in evaluated.items()},
        "differences": {name: list(paired_difference(sides[0], sides[1], metric)) for name, metric in METRICS.items()},
        "points": {name: point.threshold for name, point in points.items()},
        "limits": list(fit_thresholds(RealFeatures(features[0], features[1], features[2]), 0.9)),
        "distances": [*kernel_distance(features[0], features[1], 0), frechet_distance(features[0], features[1])],
    }


MEASURES: dict[Callable[..., Any], float] = {
    finetuning_of_a_tiny_base: 1e-3,
    finetuning_merging_and_drawing_with_the_embedded_base: 1e-4,
    images_of_the_embedded_base: 0,
    training_of_the_classifier: 1e-3,
    order_of_training: 0,
    surfaces: 0,
    captions: 0,
    memseg: 0,
    parts_of_the_data: 0,
    mixture: 0,
    judgement: 1e-9,
}
"""What is measured, and the share that floats may differ by; `levels` may differ by `LEVEL`."""


def measured(measure: Callable[..., Any], tmp_path: Path) -> Any:
    """As JSON gives it back: lists for tuples, text for keys."""
    made = measure(tmp_path) if measure is mixture else measure()
    return json.loads(json.dumps(made))


def differences(wanted: Any, got: Any, share: float, where: str = "") -> list[str]:
    """Where two values differ, and how."""
    if isinstance(wanted, dict) and isinstance(got, dict) and wanted.keys() == got.keys():
        return [text for key in wanted for text in differences(wanted[key], got[key], share, f"{where}/{key}")]
    if isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        pairs = enumerate(zip(wanted, got, strict=True))
        return [text for place, pair in pairs for text in differences(*pair, share, f"{where}/{place}")]
    if isinstance(wanted, float) and isinstance(got, float):
        allowed = LEVEL if "/levels" in where else share * abs(wanted)
        return [] if abs(got - wanted) <= allowed else [f"{where}: {wanted} was, {got} is"]
    return [] if wanted == got and type(wanted) is type(got) else [f"{where}: {wanted!r} was, {got!r} is"]


SLOW = (
    finetuning_of_a_tiny_base,
    finetuning_merging_and_drawing_with_the_embedded_base,
    images_of_the_embedded_base,
    training_of_the_classifier,
)


@pytest.mark.parametrize(
    "measure",
    [
        pytest.param(measure, id=measure.__name__, marks=[pytest.mark.slow] if measure in SLOW else [])
        for measure in MEASURES
    ],
)
def test_numbers_are_as_before(measure: Callable[..., Any], tmp_path: Path) -> None:
    wanted = json.loads(GOLDEN.read_text())[measure.__name__]
    assert not differences(wanted, measured(measure, tmp_path), MEASURES[measure])


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        written = {measure.__name__: measured(measure, Path(folder)) for measure in MEASURES}
    GOLDEN.write_text(json.dumps(written, indent=1) + "\n")

"""Compare results of GPU and CPU, and of resumed and uninterrupted fine-tuning on the GPU.

A concurrent process without access to the GPU (`gpu.py --reference FOLDER`) computes the values of the CPU. Weights,
images, noise and seeds are the same. The tolerances are for fp32 with TF32 off; `default_...` is the difference with
PyTorch's default, where convolutions may use TF32.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from benchmarks.gpu_card import DEVICE, tf32, why_no_8bit
from benchmarks.gpu_shapes import PROMPTS, TOY, Size, random_images
from inandout.checkpoint import load_checkpoint
from inandout.classifier.backbone import build_classifier
from inandout.classifier.config import BackboneConfig
from inandout.classifier.training import predict
from inandout.data.surfaces import KINDS, draw_surface
from inandout.diffusion.base.base import Base, open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.callbacks import OnStep
from inandout.diffusion.finetune.config import DreamBoothConfig, Optimiser
from inandout.diffusion.finetune.dreambooth import dreambooth
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapter_parameters, add_adapter
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample
from inandout.diffusion.vae import encode

Numbers = dict[str, np.ndarray]
WAIT = 90
"""Seconds to wait for a result of the CPU."""
LOGITS, LOSS, GRADIENT, LEVELS = 1e-3, 1e-4, 1e-3, 2
"""Tolerances: relative to the largest logit, of the loss, of the gradient norm (relative), and in grey levels."""


def logits(size: Size) -> Numbers:
    """Return logits of a classifier with non-zero residual branches (they are zero-initialised)."""
    model = build_classifier(BackboneConfig(backbone=size.backbone), 0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.5)
    model.to("cuda" if torch.cuda.is_available() else "cpu").to(memory_format=torch.channels_last)
    return {"logits": predict(model, random_images(4, *size.parts))}


def first_step(size: Size) -> Numbers:
    """Return loss and gradient of one fine-tuning step of the embedded base with a non-zero adapter."""
    base = _base_with_adapter()
    generator, values = torch.Generator().manual_seed(1), {}
    with torch.no_grad():
        for parameter in adapter_parameters(base.pipeline):
            if not parameter.any():
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "step.safetensors"
        _train(base, size, 1, checkpoint, lambda step, logged: values.update(logged))
        moment = load_checkpoint(checkpoint).weights["adam.0.exp_avg"].numpy()
    return {"loss": np.array(values["loss"]), "gradient": moment / (1 - 0.9)}


def drawn(size: Size) -> Numbers:
    """Return images of the embedded base, one per kind of defect, drawn with the defaults of `augment`."""
    pipeline = open_base(BaseConfig()).pipeline
    prompts = [f"skt background {kind}" for kind in list(KINDS)[: 2 if size is TOY else 6]]
    config = SamplingConfig(steps=4 if size is TOY else 20).resolved("embedded")
    batches = sample(pipeline, prompts, range(len(prompts)), width=64, height=64, config=config)
    return {"images": np.concatenate([batch.images for batch in batches])}


MEASURED: dict[str, Callable[[Size], Numbers]] = {"logits": logits, "first_step": first_step, "drawn": drawn}


def _base_with_adapter() -> Base:
    base = open_base(BaseConfig())
    add_adapter(base.pipeline, AdapterConfig(), 0)
    return base


def _train(
    base: Base, size: Size, steps: int, checkpoint: Path | None, on_step: OnStep, optimiser: Optimiser = "adamw"
) -> dict[str, torch.Tensor]:
    """Fine-tune for `steps` steps of `size.batch` images of 64x64."""
    images = np.stack([draw_surface(64, 64, seed=seed).image for seed in range(size.batch)])
    latents = encode(base.pipeline.vae, images)
    examples = [Example(latent.cpu(), prior=index >= size.batch // 2) for index, latent in enumerate(latents)]
    config = DreamBoothConfig(batch_size=size.batch, repeats=1, optimiser=optimiser)
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps the precision of the previous training
    return dreambooth(
        base, DreamBoothDataset(examples, *PROMPTS), epochs=steps, lr=1e-4, config=config, seed=0,
        checkpoint=checkpoint, save_every=max(steps // 2, 1), on_step=on_step,
    )  # fmt: skip


class Reference:
    """Results of the CPU, computed by another process."""

    def __init__(self, folder: Path, size_name: str) -> None:
        self.folder, self.log = folder, folder / "reference.log"
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment |= {"OMP_NUM_THREADS": str(max((os.cpu_count() or 2) // 2, 1))}
        command = [sys.executable, "-m", "benchmarks.gpu", "--reference", str(folder), "--size", size_name]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def numbers(self, name: str) -> Numbers:
        """Return the results of an entry of `MEASURED`; wait until they exist."""
        path, end = self.folder / f"{name}.npz", time.monotonic() + WAIT
        while not path.exists():
            ended = self.process.poll() is not None
            if (ended and not path.exists()) or time.monotonic() > end:
                raise RuntimeError(f"the process of the CPU wrote no {name}: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        with np.load(path) as file:
            return dict(file)

    def end(self) -> None:
        """Terminate the process."""
        self.process.terminate()
        self.process.wait()


def write_reference(folder: Path, size: Size) -> None:
    """Compute all of `MEASURED`, and write one file each."""
    for name, measure in MEASURED.items():
        np.savez(folder / f"part_{name}.npz", allow_pickle=False, **measure(size))
        (folder / f"part_{name}.npz").rename(folder / f"{name}.npz")


def compare_logits(reference: Reference, size: Size) -> dict[str, Any]:
    """Return the largest difference divided by the largest logit."""
    exact, default = _both("logits", size)
    cpu = reference.numbers("logits")["logits"]

    def difference(found: Numbers) -> float:
        return float(np.abs(found["logits"] - cpu).max() / np.abs(cpu).max())

    return _verdict({"difference": (difference(exact), LOGITS)}) | {"default_difference": difference(default)}


def compare_step(reference: Reference, size: Size) -> dict[str, Any]:
    """Return the relative differences of loss and gradient."""
    exact, default = _both("first_step", size)
    cpu = reference.numbers("first_step")

    def difference(found: Numbers, name: str) -> float:
        return float(np.linalg.norm(found[name] - cpu[name]) / np.linalg.norm(cpu[name]))

    found = {"loss": (difference(exact, "loss"), LOSS), "gradient": (difference(exact, "gradient"), GRADIENT)}
    return _verdict(found) | {f"default_{name}": difference(default, name) for name in ("loss", "gradient")}


def compare_drawn(reference: Reference, size: Size, sheet: Path) -> dict[str, Any]:
    """Return the largest difference in grey levels; save a sheet with the CPU's images above the GPU's."""
    exact, default = _both("drawn", size)
    cpu = reference.numbers("drawn")["images"]
    rows = [np.concatenate(list(images), axis=1) for images in (cpu, exact["images"], default["images"])]
    image = Image.fromarray(np.concatenate(rows))
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(sheet)
    levels = [np.abs(found["images"].astype(int) - cpu.astype(int)) for found in (exact, default)]
    verdict = _verdict({"levels": (float(levels[0].max()), LEVELS)})
    return verdict | {"mean_levels": float(levels[0].mean()), "default_levels": float(levels[1].max())}


def _both(name: str, size: Size) -> tuple[Numbers, Numbers]:
    """Return results with TF32 off, and with PyTorch's default."""
    with tf32(products=False, convolutions=False):
        exact = MEASURED[name](size)
    return exact, MEASURED[name](size) if DEVICE.type == "cuda" else exact


def _verdict(differences: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Return differences, tolerances, and whether all differences are within them."""
    result: dict[str, Any] = {"within": all(value <= limit for value, limit in differences.values())}
    for name, (value, limit) in differences.items():
        result |= {name: value, f"{name}_tolerance": limit}
    return result


class _StoppedError(Exception):
    """Interrupts a training, like a kill."""


def compare_resumed(size: Size, optimiser: Optimiser) -> dict[str, Any]:
    """Compare adapter weights after 8 steps: resumed after step 4, and of two uninterrupted runs.

    The second difference shows the effect of the order of sums on the device. Both are divided by the largest weight.
    """
    if optimiser == "adamw8bit" and (reason := why_no_8bit()):
        return {"not_available": reason}
    steps = 4 if size is TOY else 8

    def stop(step: int, values: dict[str, float]) -> None:
        if step == steps // 2:
            raise _StoppedError

    def train(checkpoint: Path | None, on_step: OnStep) -> np.ndarray:
        weights = _train(_base_with_adapter(), size, steps, checkpoint, on_step, optimiser)
        return torch.cat([weight.flatten() for weight in weights.values()]).numpy()

    first, second = (train(None, lambda *_: None) for _ in range(2))
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "stopped.safetensors"
        with suppress(_StoppedError):
            train(checkpoint, stop)
        resumed = train(checkpoint, lambda *_: None)
    scale = np.abs(first).max()
    repeated, interrupted = (float(np.abs(other - first).max() / scale) for other in (second, resumed))
    return {"resumed_difference": interrupted, "two_runs_difference": repeated, "bit_for_bit": interrupted == 0}

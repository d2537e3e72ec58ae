"""Does a classifier react to how an image was made, where it should react to defects alone?

All synthetic images are positives, so whatever a generator leaves in every one of them tells the label: the texture
of its VAE, the edge of a paste. The test: do to real good parts all that a generator does but for the defect, and see
what the classifier says (Wimmer 2024).
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from diffusers import StableDiffusionPipeline
from PIL import Image

from inandout.classifier.pixels import Pixels
from inandout.data.colour import keep_grey
from inandout.data.images import ImageArray
from inandout.diffusion.sample.vae_roundtrip import round_trip
from inandout.errors import InputError
from inandout.evaluation.metrics import BOOTSTRAP_ROUNDS, Floats, draw_parts
from inandout.memseg.anomaly import synthesise
from inandout.memseg.config import MemSegConfig
from inandout.memseg.texture_bank import open_textures

FEWEST = 10
"""Good parts that the measure needs; an interval over fewer says nothing."""
SIGNIFICANT_AUROC = 0.6
"""AUROC from which a reaction counts: a shift of .36 of the spread of good parts' own logits, if these are normal.

With many images the interval leaves .5 for far less, which changes no decision.
"""
JPEG_QUALITY = 75
BATCH = 32
"""Images that are changed and judged at once."""
VAE = "vae"
"""Key of the change that is the fingerprint of diffusion."""

Scorer = Callable[[Pixels], Floats]
"""Images (N, H, W, 3) to defect logits (N,)."""


class Perturbation(NamedTuple):
    """Something that is done to good parts."""

    key: str
    """In the names of metrics."""
    name: str
    """In tables and captions."""
    apply: Callable[[Pixels], Pixels]
    """(N, H, W, 3) uint8 to the same; images without colour get none."""


class Interval(NamedTuple):
    """A value and the 95 % percentile interval of its bootstrap over physical parts."""

    value: float
    low: float
    high: float

    def words(self, signed: bool = False) -> str:
        """For a table."""
        form = "+.3f" if signed else ".3f"
        return f"{self.value:{form}} ({self.low:{form}} .. {self.high:{form}})"


class Responses(NamedTuple):
    """Good parts before and after a change."""

    before: Floats
    """Logits (N,)."""
    after: Floats
    """Logits (N,) of the same images."""
    levels: float
    """Mean difference of a pixel, 0..255."""
    groups: Sequence[str] = ()
    """(N,): which physical part an image shows, as in `Scored`."""


class PerturbationEffect(NamedTuple):
    """What a classifier says to a change."""

    perturbation: Perturbation
    responses: Responses
    auroc: Interval
    """Of changed against unchanged: .5 = cannot be told apart, 1 = every changed one scores higher."""
    rise: Interval
    """Of the logit, mean over images."""
    called: tuple[float, float] | None
    """Shares called defects, 0..1, before and after; None without a threshold."""

    def is_significant(self) -> bool:
        """Whether changed good parts look more like defects, by more than chance and by more than a trifle."""
        return self.auroc.low > 0.5 and self.auroc.value >= SIGNIFICANT_AUROC


def perturbations(pipeline: StableDiffusionPipeline, vae_name: str) -> list[Perturbation]:
    """What generators do, and what cameras and software do, to images; `vae_name` says whose VAE it is."""
    return [
        Perturbation(VAE, f"VAE of {vae_name}", lambda pixels: round_trip(pipeline, pixels)),
        Perturbation("paste", "MemSeg at opacity 0", paste_nothing),
        Perturbation("jpeg", f"JPEG of quality {JPEG_QUALITY}", jpeg),
        Perturbation("resize", "resize to half and back", resize),
    ]


def paste_nothing(pixels: Pixels) -> Pixels:
    """MemSeg's whole way with an anomaly that cannot be seen: what is left is what the pasting itself does."""
    unseen = MemSegConfig().model_copy(update={"opacity_min": 0.0, "opacity_max": 0.0})  # not to be had in a config
    textures = open_textures("")
    return np.stack([synthesise(image, seed, unseen, textures).image for seed, image in enumerate(pixels)])


def jpeg(pixels: Pixels) -> Pixels:
    """Compressed and decompressed."""
    return keep_grey(pixels, np.stack([_compressed(image) for image in pixels]))


def resize(pixels: Pixels) -> Pixels:
    """Shrunk to half of each side and enlarged again, as `fit_image` does it."""
    height, width = pixels.shape[1:3]
    small = (max(1, width // 2), max(1, height // 2))
    return np.stack([_resized(_resized(image, small), (width, height)) for image in pixels])


def _compressed(image: ImageArray) -> ImageArray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _resized(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def measure_responses(
    score: Scorer, pixels: Pixels, perturbation: Perturbation, groups: Sequence[str] = ()
) -> Responses:
    """Judge good parts (N, H, W, 3) before and after a change, in the same batches: what is equal has equal logits."""
    before, after, levels = [], [], []
    for start in range(0, len(pixels), BATCH):
        untouched = pixels[start : start + BATCH]
        changed = perturbation.apply(untouched)
        before.append(score(untouched))
        after.append(score(changed))
        levels += np.abs(changed.astype(np.int16) - untouched).mean(axis=(1, 2, 3)).tolist()
    return Responses(np.concatenate(before), np.concatenate(after), float(np.mean(levels)), groups)


def measure_effect(
    perturbation: Perturbation, responses: Responses, threshold: float | None, seed: int, rounds: int = BOOTSTRAP_ROUNDS
) -> PerturbationEffect:
    """Measure a reaction; a round of the bootstrap draws good parts, each image with its changed copy.

    Args:
        perturbation: what was done.
        responses: what the classifier says.
        threshold: from which a logit is called a defect, if there is one.
        seed: of the bootstrap.
        rounds: of the bootstrap.

    Raises:
        InputError: fewer than `FEWEST` images, or a logit that is not finite.
    """
    count = len(responses.before)
    if count < FEWEST:
        raise InputError(f"{count} good parts say nothing of a classifier; the probe needs {FEWEST} or more")
    if not (np.isfinite(responses.before).all() and np.isfinite(responses.after).all()):
        raise InputError("some logits are NaN or infinite: the model is broken; train it again with a lower lr")
    weights = draw_parts(np.zeros(count, np.int64), responses.groups, np.random.default_rng(seed), rounds)
    rises, evenly = responses.after - responses.before, np.ones((1, count))
    called = None
    if threshold is not None:
        called = float((responses.before >= threshold).mean()), float((responses.after >= threshold).mean())
    return PerturbationEffect(
        perturbation, responses, _interval(_aurocs(responses, evenly)[0], _aurocs(responses, weights)),
        _interval(rises.mean(), weights @ rises / weights.sum(axis=1)), called,
    )  # fmt: skip


def _aurocs(responses: Responses, weights: npt.NDArray[Any]) -> Floats:
    """(R,): the share of pairs in which `after` is higher than `before`, ties a half; a pair counts its weights (R, N).

    That is the statistic of Mann and Whitney.
    """
    after, before = responses.after[:, None], responses.before[None]
    higher = (after > before) + 0.5 * (after == before)
    shares: Floats = ((weights @ higher) * weights).sum(axis=1) / weights.sum(axis=1) ** 2
    return shares


def _interval(value: float, drawn: Floats) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def amplified(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], gain: float) -> npt.NDArray[np.uint8]:
    """`gain` times the difference of images (..., 3), around middle grey."""
    return np.clip(128 + gain * (after.astype(np.float64) - before), 0, 255).astype(np.uint8)

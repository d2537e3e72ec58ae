"""Probe for shortcut learning: does a classifier react to generator artefacts instead of defects?

All synthetic images are positives, so any artefact that a generator leaves in every image, such as the texture of its
VAE or the edge of a paste, predicts the label. The probe applies these artefacts to real good parts, without a defect,
and measures how the logits change (Wimmer 2024).
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from inandout.classifier.pixels import Pixels
from inandout.data.colour import keep_grey
from inandout.data.images import ImageArray
from inandout.errors import InputError
from inandout.evaluation.metrics import BOOTSTRAP_ROUNDS, Floats, draw_parts
from inandout.memseg.anomaly import synthesise
from inandout.memseg.config import MemSegConfig
from inandout.memseg.texture_bank import open_textures

if TYPE_CHECKING:
    from inandout.diffusion.pipeline import Pipeline

FEWEST = 10
"""Minimum number of good parts; an interval over fewer is meaningless."""
SIGNIFICANT_AUROC = 0.6
"""Minimum AUROC of a significant reaction: a shift of .36 standard deviations for normally distributed logits.

With many images, the interval excludes .5 even for shifts that change no decision.
"""
JPEG_QUALITY = 75
BATCH = 32
"""Images per batch."""
VAE = "vae"
"""Key of the VAE round trip, the artefact of latent diffusion."""

Scorer = Callable[[Pixels], Floats]
"""Maps images (N, H, W, 3) to defect logits (N,)."""


class Perturbation(NamedTuple):
    """An artefact applied to good parts."""

    key: str
    """Used in metric names."""
    name: str
    """Used in tables and captions."""
    apply: Callable[[Pixels], Pixels]
    """Maps (N, H, W, 3) uint8 to the same shape; grey images stay grey."""


class Interval(NamedTuple):
    """A value and the 95 % percentile interval of a bootstrap over physical parts."""

    value: float
    low: float
    high: float

    def text(self, signed: bool = False) -> str:
        """Return `0.612 (0.550 .. 0.671)`, with signs if `signed`."""
        form = "+.3f" if signed else ".3f"
        return f"{self.value:{form}} ({self.low:{form}} .. {self.high:{form}})"


class Responses(NamedTuple):
    """Logits of good parts before and after a perturbation."""

    before: Floats
    """(N,)."""
    after: Floats
    """(N,), for the same images."""
    levels: float
    """Mean absolute pixel difference, 0..255."""
    groups: Sequence[str] = ()
    """(N,) physical part shown by each image, as in `Scored`."""


class PerturbationEffect(NamedTuple):
    """Effect of a perturbation on a classifier."""

    perturbation: Perturbation
    responses: Responses
    auroc: Interval
    """AUROC of perturbed against original images: .5 = no separation, 1 = every perturbed image scores higher."""
    rise: Interval
    """Mean change of the logit."""
    called: tuple[float, float] | None
    """Shares of images predicted as defects, 0..1, before and after; None without a threshold."""

    def is_significant(self) -> bool:
        """Return whether perturbed good parts score higher, both statistically and by a relevant amount."""
        return self.auroc.low > 0.5 and self.auroc.value >= SIGNIFICANT_AUROC


def perturbations(pipeline: "Pipeline", vae_name: str) -> list[Perturbation]:
    """Return artefacts of generators and, for comparison, of cameras and software; `vae_name` labels the VAE."""
    from inandout.diffusion.sample.vae_roundtrip import round_trip  # diffusers takes seconds to import

    return [
        Perturbation(VAE, f"VAE of {vae_name}", lambda pixels: round_trip(pipeline, pixels)),
        Perturbation("paste", "MemSeg at opacity 0", paste_nothing),
        Perturbation("jpeg", f"JPEG of quality {JPEG_QUALITY}", jpeg),
        Perturbation("resize", "resize to half and back", resize),
    ]


def paste_nothing(pixels: Pixels) -> Pixels:
    """Run MemSeg with a fully transparent anomaly, a control that changes no pixel."""
    transparent = MemSegConfig().model_copy(update={"opacity_min": 0.0, "opacity_max": 0.0})  # bypasses validation
    textures = open_textures("")
    return np.stack([synthesise(image, seed, transparent, textures).image for seed, image in enumerate(pixels)])


def paste_neighbour(pixels: Pixels) -> Pixels:
    """Paste a region of the next image at the same place, inside a mask of MemSeg and with the mean of the old region.

    Each image is a good part outside and inside the mask; only the seam is new. A single image is returned unchanged.
    """
    textures, pasted = open_textures(""), pixels.copy()
    for seed, (image, neighbour) in enumerate(zip(pasted, np.roll(pixels, -1, axis=0), strict=True)):
        mask = synthesise(image, seed, MemSegConfig(), textures).mask
        region = neighbour[mask].astype(np.float64)
        image[mask] = np.clip(np.rint(region + image[mask].mean(0) - region.mean(0)), 0, 255)
    return pasted


SEAM = Perturbation("seam", "region of another good part", paste_neighbour)
"""The edge of a paste, for maps of defects."""


def jpeg(pixels: Pixels) -> Pixels:
    """Compress and decompress images as JPEG."""
    return keep_grey(pixels, np.stack([_compressed(image) for image in pixels]))


def resize(pixels: Pixels) -> Pixels:
    """Halve the size of images and enlarge them again, with the interpolation of `fit_image`."""
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
    """Score good parts (N, H, W, 3) before and after a perturbation, in equal batches so that equal images tie."""
    before, after, levels = [], [], []
    for start in range(0, len(pixels), BATCH):
        original = pixels[start : start + BATCH]
        perturbed = perturbation.apply(original)
        before.append(score(original))
        after.append(score(perturbed))
        levels += np.abs(perturbed.astype(np.int16) - original).mean(axis=(1, 2, 3)).tolist()
    return Responses(np.concatenate(before), np.concatenate(after), float(np.mean(levels)), groups)


def measure_effect(
    perturbation: Perturbation, responses: Responses, threshold: float | None, seed: int, rounds: int = BOOTSTRAP_ROUNDS
) -> PerturbationEffect:
    """Measure the effect of a perturbation; the bootstrap draws parts, each image with its perturbed copy.

    Args:
        perturbation: the perturbation.
        responses: logits from `measure_responses`.
        threshold: logit from which an image is predicted as a defect, or None.
        seed: seed of the bootstrap.
        rounds: rounds of the bootstrap.

    Raises:
        InputError: there are fewer than `FEWEST` images, or a logit is not finite.
    """
    count = len(responses.before)
    if count < FEWEST:
        raise InputError(f"{count} good parts are too few; the probe needs {FEWEST} or more")
    if not (np.isfinite(responses.before).all() and np.isfinite(responses.after).all()):
        raise InputError("some logits are NaN or infinite because the model diverged; train it again with a lower lr")
    weights = draw_parts(np.zeros(count, np.int64), responses.groups, np.random.default_rng(seed), rounds)
    rises, uniform = responses.after - responses.before, np.ones((1, count))
    called = None
    if threshold is not None:
        called = float((responses.before >= threshold).mean()), float((responses.after >= threshold).mean())
    return PerturbationEffect(
        perturbation, responses, _interval(_aurocs(responses, uniform)[0], _aurocs(responses, weights)),
        _interval(rises.mean(), weights @ rises / weights.sum(axis=1)), called,
    )  # fmt: skip


def _aurocs(responses: Responses, weights: npt.NDArray[Any]) -> Floats:
    """Return the weighted Mann-Whitney statistic (R,) of `after` against `before`, weights (R, N); ties count half."""
    after, before = responses.after[:, None], responses.before[None]
    higher = (after > before) + 0.5 * (after == before)
    shares: Floats = ((weights @ higher) * weights).sum(axis=1) / weights.sum(axis=1) ** 2
    return shares


def _interval(value: float, resampled: Floats) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def amplified(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], gain: float) -> npt.NDArray[np.uint8]:
    """Return `gain` times the difference of images (..., 3), centred at middle grey."""
    return np.clip(128 + gain * (after.astype(np.float64) - before), 0, 255).astype(np.uint8)

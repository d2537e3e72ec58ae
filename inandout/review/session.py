"""The images of a review: a pool or real images with suspicious labels, and real images for comparison."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from inandout.data.config import Geometry
from inandout.data.geometry import fit_image
from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample, digests
from inandout.errors import InputError
from inandout.review.base_preview import BasePreview, PreviewState, has_preview
from inandout.review.flags import Flag, Flagger

_LOCAL = ("memseg", "inpaint")
"""Origins of images that are a local change of one image, the first of their sources."""


@dataclass(frozen=True)
class ReviewSession:
    """The images of a review, identified by content; duplicates appear once."""

    title: str
    samples: list[Sample]
    ids: list[str]
    """Digests of `samples`."""
    flags: list[list[Flag]]
    """Flags of `samples`."""
    real: dict[str, Sample] = field(default_factory=dict)
    """Maps digests to training images of the data set."""
    fit: Literal["crop", "stretch"] = "crop"
    """How real images are fitted to the size of the pool's images."""
    about: Literal["pool", "labels"] = "pool"
    """pool: judge the quality of synthetic images; labels: judge the labels of real images."""
    scores: list[float] = field(default_factory=list)
    """Out-of-sample defect probabilities of `samples`; may be empty."""
    base_preview: BasePreview | None = None
    """Generates diffusion images again at alpha 0, if possible."""

    @property
    def identity(self) -> str:
        """32 hexadecimal digits that depend on the set of images alone."""
        return identity_of(self.ids)

    def sample(self, image: str) -> Sample:
        """Return the sample with a digest.

        Raises:
            KeyError: there is no such sample.
        """
        try:
            return self.samples[self.ids.index(image)]
        except ValueError:
            raise KeyError(image) from None

    def source(self, image: str) -> ImageArray | None:
        """Return the image to compare with, in the same size; None if there is none.

        It is the source image of a local change, or the preview at alpha 0 of a diffusion image.
        """
        sample = self.sample(image)
        preview = self.preview(image)
        if preview is not None:
            return read_image(preview.path) if preview.state == "ready" else None
        return _source(sample, self.real, read_image(sample.image), self.fit)

    def has_source(self, sample: Sample) -> bool:
        """Return whether a sample is a local change of a known real image."""
        return _has_source(sample, self.real)

    def has_preview(self, sample: Sample) -> bool:
        """Return whether a sample can be generated again at alpha 0."""
        return self.base_preview is not None and has_preview(sample)

    def preview(self, image: str) -> PreviewState | None:
        """Return the preview at alpha 0, which is generated on the first call; None if it cannot be generated."""
        sample = self.sample(image)
        return self.base_preview.of(image, sample) if self.base_preview is not None and has_preview(sample) else None


def identity_of(images: Sequence[str]) -> str:
    """Return 32 hexadecimal digits that identify a set of digests."""
    return hashlib.sha256("".join(sorted(set(images))).encode()).hexdigest()[:32]


def build_session(
    title: str, folder: Path, pool: Sequence[Sample], real: Sequence[Sample], fit: Literal["crop", "stretch"] = "crop"
) -> ReviewSession:
    """Build the session of a pool and flag suspicious images.

    Args:
        title: title of the page.
        folder: folder of the pool.
        pool: rows of the pool.
        real: rows of the data set of the pool; only the training part is used. May be empty.
        fit: how real images are fitted to the size of the pool's images.

    Raises:
        InputError: a row points outside the folder, or an image cannot be read.
    """
    refuse_outside(folder, pool)
    by_digest = dict(zip(digests([sample.image for sample in pool]), pool, strict=True))
    samples = list(by_digest.values())
    training = [sample for sample in real if sample.split == "train"]
    known = dict(zip(digests([sample.image for sample in training]), training, strict=True))
    return ReviewSession(title, samples, list(by_digest), _flag(samples, known, fit), known, fit)


def build_label_session(title: str, suspects: Sequence[Sample], scores: Sequence[float]) -> ReviewSession:
    """Build the session for judging the labels of real images, in this order.

    The least suspicious images serve as references. `scores` are out-of-sample defect probabilities.
    """
    scored = dict(zip(digests([sample.image for sample in suspects]), zip(suspects, scores, strict=True), strict=True))
    samples, unique_scores = [sample for sample, _ in scored.values()], [score for _, score in scored.values()]
    flags: list[list[Flag]] = [
        ["contrary"] if (score > 0.5) != (sample.label == 1) else [] for sample, score in scored.values()
    ]  # fmt: skip
    references = {image: sample for image, (sample, _) in reversed(scored.items())}
    return ReviewSession(title, samples, list(scored), flags, references, about="labels", scores=unique_scores)


def refuse_outside(folder: Path, pool: Sequence[Sample]) -> None:
    """Check that all files of a pool are inside its folder, so that a manifest cannot expose other files.

    Raises:
        InputError: an image or a mask is outside the folder after resolving symbolic links.
    """
    inside = folder.resolve()
    for sample in pool:
        for path in (sample.image, sample.mask):
            if path is not None and not path.resolve().is_relative_to(inside):
                raise InputError(f"{path}: is outside the pool {folder}; move the file into the pool")


def _flag(samples: Sequence[Sample], real: dict[str, Sample], fit: Literal["crop", "stretch"]) -> list[list[Flag]]:
    height, width = read_image(samples[0].image).shape[:2]
    size = Geometry.model_construct(width=width, height=height, fit=fit)
    fitted = [(sample.label, fit_image(read_image(sample.image), size)) for sample in real.values()]
    flagger = Flagger([image for _, image in fitted], [image for label, image in fitted if label == 1])
    flags = []
    for sample in tqdm(samples, "flags", disable=None):
        image = read_image(sample.image)
        flags.append(flagger.judge(image, _source(sample, real, image, fit)))
    return flags


def _source(
    sample: Sample, real: dict[str, Sample], image: ImageArray, fit: Literal["crop", "stretch"]
) -> ImageArray | None:  # fmt: skip
    if not _has_source(sample, real):
        return None
    height, width = image.shape[:2]
    size = Geometry.model_construct(width=width, height=height, fit=fit)
    return fit_image(read_image(real[sample.sources[0]].image), size)


def _has_source(sample: Sample, real: dict[str, Sample]) -> bool:
    return sample.origin in _LOCAL and bool(sample.sources) and sample.sources[0] in real

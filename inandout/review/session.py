"""The images that lie on the reviewer's desk: a pool, what is known of it, and real ones to compare with."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from inandout.data.geometry import Geometry, fit_image
from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample, digests
from inandout.errors import InputError
from inandout.review.base_preview import BasePreview, PreviewState, has_preview
from inandout.review.flags import Flag, Flagger

_LOCAL = ("memseg", "inpaint")
"""Origins that change a part of one image, the first of their sources."""


@dataclass(frozen=True)
class ReviewSession:
    """What is reviewed. Images are told apart by content: one that is there twice lies here once."""

    title: str
    samples: list[Sample]
    ids: list[str]
    """Digests of `samples`."""
    flags: list[list[Flag]]
    """Of `samples`."""
    real: dict[str, Sample] = field(default_factory=dict)
    """Training images of the data set by digest."""
    fit: Literal["crop", "stretch"] = "crop"
    """How real images are brought to the size of the pool's."""
    about: Literal["pool", "labels"] = "pool"
    """What is decided: whether a synthetic image is any good, or whether the label of a real one is right."""
    scores: list[float] = field(default_factory=list)
    """Of `samples`, the probability of a defect by a classifier that has not seen them; empty where there is none."""
    base_preview: BasePreview | None = None
    """Draws diffusion images again at alpha 0, where it is known how."""

    @property
    def identity(self) -> str:
        """32 hexadecimal digits of what the images are, whatever is known of them."""
        return identity_of(self.ids)

    def sample(self, image: str) -> Sample:
        """The row of a digest.

        Raises:
            KeyError: there is none.
        """
        try:
            return self.samples[self.ids.index(image)]
        except ValueError:
            raise KeyError(image) from None

    def source(self, image: str) -> ImageArray | None:
        """What one is compared with, in its size: the real image that it was made from by a local change, or what
        the base alone makes of its prompt and seed; None where neither is there.
        """
        sample = self.sample(image)
        preview = self.preview(image)
        if preview is not None:
            return read_image(preview.path) if preview.state == "ready" else None
        return _source(sample, self.real, read_image(sample.image), self.fit)

    def has_source(self, sample: Sample) -> bool:
        """Whether `source` knows one."""
        return _has_source(sample, self.real)

    def has_preview(self, sample: Sample) -> bool:
        """Whether a row can be drawn again at alpha 0."""
        return self.base_preview is not None and has_preview(sample)

    def preview(self, image: str) -> PreviewState | None:
        """The same prompt and seed at alpha 0, drawn when it is asked for first; None where it cannot be."""
        sample = self.sample(image)
        return self.base_preview.of(image, sample) if self.base_preview is not None and has_preview(sample) else None


def identity_of(images: Sequence[str]) -> str:
    """32 hexadecimal digits of a set of digests."""
    return hashlib.sha256("".join(sorted(set(images))).encode()).hexdigest()[:32]


def build_session(
    title: str, folder: Path, pool: Sequence[Sample], real: Sequence[Sample], fit: Literal["crop", "stretch"] = "crop"
) -> ReviewSession:
    """Read every image of a pool once, and flag what strikes.

    Args:
        title: names the pool to a person.
        folder: of the pool.
        pool: its rows.
        real: rows of the data set it was made from; only its training part is used. May be empty.
        fit: how real images are brought to the size of the pool's.

    Raises:
        InputError: a row points outside of the folder, or an image cannot be read.
    """
    refuse_outside(folder, pool)
    by_digest = dict(zip(digests([sample.image for sample in pool]), pool, strict=True))
    samples = list(by_digest.values())
    training = [sample for sample in real if sample.split == "train"]
    known = dict(zip(digests([sample.image for sample in training]), training, strict=True))
    return ReviewSession(title, samples, list(by_digest), _flag(samples, known, fit), known, fit)


def build_label_session(title: str, suspects: Sequence[Sample], scores: Sequence[float]) -> ReviewSession:
    """Real images whose labels are to be judged, in this order; the least suspicious ones lie beside.

    `scores` are the probabilities of a defect by a classifier that has not seen them.
    """
    scored = dict(zip(digests([sample.image for sample in suspects]), zip(suspects, scores, strict=True), strict=True))
    samples, known = [sample for sample, _ in scored.values()], [score for _, score in scored.values()]
    flags: list[list[Flag]] = [
        ["contrary"] if (score > 0.5) != (sample.label == 1) else [] for sample, score in scored.values()
    ]  # fmt: skip
    beside = {image: sample for image, (sample, _) in reversed(scored.items())}
    return ReviewSession(title, samples, list(scored), flags, beside, about="labels", scores=known)


def refuse_outside(folder: Path, pool: Sequence[Sample]) -> None:
    """What lies elsewhere is not shown to anyone, whatever a manifest says.

    Raises:
        InputError: an image or a mask lies outside of the folder, symbolic links followed.
    """
    inside = folder.resolve()
    for sample in pool:
        for path in (sample.image, sample.mask):
            if path is not None and not path.resolve().is_relative_to(inside):
                raise InputError(f"{path}: lies outside of the pool {folder}; a pool holds its images itself")


def _flag(samples: Sequence[Sample], real: dict[str, Sample], fit: Literal["crop", "stretch"]) -> list[list[Flag]]:
    height, width = read_image(samples[0].image).shape[:2]
    size = Geometry.model_construct(width=width, height=height, fit=fit)
    fitted = [(one.label, fit_image(read_image(one.image), size)) for one in real.values()]
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

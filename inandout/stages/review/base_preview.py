"""Preview of pool images without the adapter: loads the base on the first request."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from inandout.data.colour import is_grey, without_colour
from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample
from inandout.errors import InputError
from inandout.review.base_preview import BasePreview, has_preview
from inandout.stages.pools.drawing_config import read_drawing_config

if TYPE_CHECKING:
    from inandout.diffusion.pipeline import Pipeline
    from inandout.stages.pools.text2img import DiffusionSetup


def open_base_preview(run_id: str, pool: Sequence[Sample], folder: Path) -> BasePreview | None:
    """Return a preview that redraws rows of a pool at alpha 0 into `folder`; None if no row can be redrawn."""
    if not any(has_preview(row) for row in pool):
        return None
    config = read_drawing_config(run_id)
    if config is None:
        print(
            f"remark: run {run_id} does not record how its images were drawn, so there is no preview at alpha 0",
            file=sys.stderr,
        )
        return None

    @cache
    def setup() -> tuple["DiffusionSetup", "Pipeline"]:
        from inandout.stages.pools.text2img import open_diffusion_setup  # diffusers takes seconds to import

        opened = open_diffusion_setup(config)
        return opened, opened.merge(0)

    return BasePreview(folder, lambda row: _at_zero(*setup(), row))


def _at_zero(setup: "DiffusionSetup", pipeline: "Pipeline", row: Sample) -> ImageArray:
    """Redraw the image of a row with the base only, which equals `merge` at alpha 0; grey if the image is grey."""
    from inandout.diffusion.sample.sampler import sample

    if setup.base.fingerprint != row.base:
        raise InputError(f"base {setup.config.base.base}: has changed since this image was drawn; restore it")
    assert row.seed is not None
    drawn = sample(
        pipeline, [row.prompt], [row.seed], width=setup.config.geometry.width,
        height=setup.config.geometry.height,
        config=setup.sampling, clip_skip=setup.adapter.meta.clip_skip, composition=setup.composition,
    )  # fmt: skip
    image: ImageArray = next(drawn).images[0]
    return without_colour(image) if is_grey(read_image(row.image)) else image

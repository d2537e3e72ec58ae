"""What the pictures of a pool are without the adapter: opens the base of the run that made them, once someone looks."""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from inandout.data.colour import is_grey, without_colour
from inandout.data.images import Picture, read_image
from inandout.data.manifest import Sample
from inandout.diffusion.sample.sampler import sample
from inandout.errors import InputError
from inandout.review.base_preview import Twins, has_twin
from inandout.stages.pools.text2img import Tools, drawn_with, open_tools


def open_twins(run_id: str, pool: Sequence[Sample], folder: Path) -> Twins | None:
    """Draws rows of a pool again at alpha 0, into `folder`; None where no row can be, or it is not known how."""
    if not any(has_twin(row) for row in pool):
        return None
    config = drawn_with(run_id)
    if config is None:
        print(
            f"remark: run {run_id} does not say what its pictures were drawn with, so they cannot be shown at alpha 0",
            file=sys.stderr,
        )
        return None

    @cache
    def tools() -> Tools:
        return open_tools(config)

    return Twins(folder, lambda row: _at_zero(tools(), row))


def _at_zero(tools: Tools, row: Sample) -> Picture:
    """The picture of a row as the base alone draws it, which is what `merge` gives at alpha 0; grey where it is."""
    if tools.base.fingerprint != row.base:
        raise InputError(f"base {tools.config.base}: is no longer the one that this picture was drawn with")
    assert row.seed is not None
    drawn = sample(
        tools.base.pipeline, [row.prompt], [row.seed], width=tools.config.width, height=tools.config.height,
        config=tools.how, clip_skip=tools.adapter.meta.clip_skip,
    )  # fmt: skip
    picture: Picture = next(drawn).pictures[0]
    return without_colour(picture) if is_grey(read_image(row.image)) else picture

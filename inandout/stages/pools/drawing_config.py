"""The configuration that drew a pool of diffusion images; importing it loads no model library."""

import json

from inandout.stages.pools.config import DdpmPoolConfig
from inandout.tracking.runs import artifact_folder, artifact_names

DRAWN_WITH = "drawn_with.json"
"""Artifact of a diffusion pool: the configuration that reproduces its images."""
DRAWING_INPUTS = ("data", "base", "base_config", "adapter")
"""Options that `drawing_inputs` covers."""


def read_drawing_config(run_id: str) -> DdpmPoolConfig | None:
    """Read the resolved configuration that drew the images of a run; None if the run does not record it."""
    if DRAWN_WITH not in artifact_names(run_id):
        return None
    return DdpmPoolConfig.from_flat(**json.loads(artifact_folder(run_id, DRAWN_WITH).read_text(encoding="utf-8")))

"""Prompt lab of the entry point `review`: loads base and adapter, and logs the attempts."""

import hashlib
from typing import NamedTuple

import mlflow

from inandout.data.manifest import digests, fingerprint
from inandout.data.prepare import prepare_shot
from inandout.options import known
from inandout.review.app import PromptLabPage
from inandout.review.prompt_lab import GenerationRequest, PromptLab
from inandout.review.renderer import Renderer
from inandout.review.session import ReviewSession
from inandout.stages.pools.config import DdpmConfig
from inandout.stages.pools.text2img import adapter_for, composition, open_on_cpu
from inandout.tracking.store import state_folder

_FIRST = 4
"""Initial number of images per prompt in the form."""


class OpenedPromptLab(NamedTuple):
    """A prompt lab, a session with real images, and fingerprints of dataset, base and adapter."""

    lab_page: PromptLabPage
    session: ReviewSession
    inputs: dict[str, str]


def open_prompt_lab(config: DdpmConfig) -> OpenedPromptLab:
    """Load base and adapter of a resolved configuration; fine-tune the adapter first if none is given."""
    samples = prepare_shot(config.data, config.scenario, config.seed)
    adapter = adapter_for(config, samples)
    base, hardware = open_on_cpu(config.base), config.hardware.open()
    sampling, geometry = config.sampling, config.geometry
    inputs = {"data": fingerprint(samples), "base": base.fingerprint, "adapter": adapter.fingerprint}
    width, height = geometry.width, geometry.height
    composed_of = composition(config.drawing, base, adapter, hardware)
    key = hashlib.sha256(
        f"{inputs} {width}x{height} {sampling.scheduler} {sampling.steps} {config.drawing.guidance_mode}".encode()
    ).hexdigest()
    lab = PromptLab(
        state_folder() / "prompt_lab" / key[:32],
        Renderer(base, adapter, width, height, sampling, composed_of, hardware).draw,
    )
    start = GenerationRequest(
        prompts=config.with_prompts(adapter.meta.instance_prompt).drawing.prompt_list()[:1],
        negative_prompt=sampling.negative_prompt, alpha=known(config.drawing.alpha), guidance=known(sampling.guidance),
        number=_FIRST, seed=config.seed,
    )  # fmt: skip
    training = [sample for sample in samples if sample.split == "train"]
    real = dict(zip(digests([sample.image for sample in training]), training, strict=True))
    return OpenedPromptLab(
        PromptLabPage(lab, start), ReviewSession("Prompt lab", [], [], [], real, geometry.fit), inputs
    )


def save_prompt_lab(run_id: str, lab: PromptLab) -> str:
    """Log all attempts and chosen prompts to the run, replacing earlier ones, from any thread; return a summary."""
    mlflow.MlflowClient().log_artifacts(run_id, str(lab.folder), "prompt_lab")
    chosen, attempts = lab.chosen(), len(lab.attempts())
    if not chosen:
        return f"{attempts} attempts, logged to run {run_id}. No prompt was chosen."
    return f"{attempts} attempts, logged to run {run_id}. To generate a pool, add to augment: {lab.option()}"

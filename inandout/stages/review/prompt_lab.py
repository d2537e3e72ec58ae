"""The prompt room of the entry point `review`: opens base and adapter, and keeps what was tried."""

import hashlib
from typing import NamedTuple

import mlflow

from inandout.data.manifest import digests, fingerprint
from inandout.data.prepare import prepare_shot
from inandout.diffusion.base.base import open_base
from inandout.diffusion.sample.inpaint import refuse_painting
from inandout.diffusion.sample.sampler import SamplingConfig
from inandout.review.app import Painted
from inandout.review.prompt_lab import Room, Wish
from inandout.review.renderer import Painter
from inandout.review.session import Desk
from inandout.stages.pools.text2img import DdpmConfig, adapter_for
from inandout.tracking import state_folder

_FIRST = 4
"""Pictures of a prompt that the form asks for first."""


class OpenedRoom(NamedTuple):
    """A prompt room, real pictures to show in it, and fingerprints of what it draws with."""

    painted: Painted
    desk: Desk
    inputs: dict[str, str]


def open_room(config: DdpmConfig) -> OpenedRoom:
    """Load what draws; where no adapter is given, one is fine-tuned first, as `augment` does."""
    samples = prepare_shot(config)
    adapter = adapter_for(config)
    base = open_base(config)
    refuse_painting(base.pipeline)
    how = SamplingConfig(**config.model_dump(include=set(SamplingConfig.model_fields))).resolved(base.kind)
    inputs = {"data": fingerprint(samples), "base": base.fingerprint, "adapter": adapter.fingerprint}
    key = hashlib.sha256(f"{inputs} {config.width}x{config.height} {how.scheduler} {how.steps}".encode()).hexdigest()
    room = Room(
        state_folder() / "room" / key[:32], Painter(base, adapter, config.width, config.height, how).draw
    )  # fmt: skip
    start = Wish(
        prompts=config.prompt_list(adapter.meta.instance_prompt)[:1], negative_prompt=config.negative_prompt,
        alpha=config.weight(), guidance=how.guidance or 1.0, number=_FIRST, seed=config.seed,
    )  # fmt: skip
    training = [sample for sample in samples if sample.split == "train"]
    real = dict(zip(digests([sample.image for sample in training]), training, strict=True))
    return OpenedRoom(Painted(room, start), Desk("Prompt room", [], [], [], real, config.fit), inputs)


def keep_room(run_id: str, room: Room) -> str:
    """Put all tries and the chosen prompts into the run, in place of what was there; from any thread."""
    mlflow.MlflowClient().log_artifacts(run_id, str(room.folder), "room")
    chosen, tries = room.chosen(), len(room.tries())
    if not chosen:
        return f"{tries} tries, in run {run_id}. No prompt was chosen to be used."
    return f"{tries} tries, in run {run_id}. To make a pool of the chosen prompts, add to augment: {room.option()}"

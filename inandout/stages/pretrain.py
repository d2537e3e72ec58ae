"""Entry point `pretrain`: train the embedded Stable Diffusion on procedural surfaces, and write its folder."""

from pathlib import Path

import mlflow

from inandout.data.surfaces import KINDS
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.base.identity import base_identity
from inandout.diffusion.callbacks import OnStep
from inandout.diffusion.pretrain.assemble import assemble, load_train_state, new_train_state, new_vae
from inandout.diffusion.pretrain.config import HELD_OUT
from inandout.diffusion.pretrain.stream import WEIGHTED_KINDS, SurfaceStream
from inandout.diffusion.pretrain.train_unet import TrainState, pretrain_unet
from inandout.diffusion.pretrain.train_vae import pretrain_vae
from inandout.diffusion.reconstruction import measure_reconstruction
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample
from inandout.diffusion.vae import decode, encode
from inandout.fingerprints import Identity
from inandout.reporting.figures import contact_sheet
from inandout.stages.config import PretrainConfig
from inandout.tracking.logging import log_values, mean_logger
from inandout.tracking.runs import open_run
from inandout.tracking.store import connect

PROMPTS = ("background", *(f"background {kind}" for kind in KINDS))
"""Prompts of the contact sheets, one per row."""

_SHOWN = 8
_LOGGED_EVERY = 20


def pretrain(config: PretrainConfig) -> None:
    """Train the embedded Stable Diffusion; the same command resumes a stopped training."""
    out = Path(config.out)
    checkpoints = out / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    connect()
    inputs = {"start": base_identity(BaseConfig(base=config.start))} if config.start else {}
    identity = Identity("pretrain", __name__, config, inputs, ignored=inputs.keys())
    with open_run("pretrain", config.flat(), identity.fingerprint, f"pretrain seed={config.seed:02d}"):
        train_state = load_train_state(Path(config.start)) if config.start else _begin(config, checkpoints)
        pretrain_unet(
            train_state, SurfaceStream(config.seed, config.batch_size, config.close_ups, WEIGHTED_KINDS),
            steps=config.unet_steps, lr=config.lr, text_share=config.text_share,
            checkpoint=checkpoints / "unet.safetensors", save_every=config.save_every,
            on_step=_exporter(train_state, config.sheet_every, out),
        )  # fmt: skip
        assemble(train_state).save_pretrained(out)
    print(f"{out}: written; load it with StableDiffusionPipeline.from_pretrained('{out}', local_files_only=True)")


def _begin(config: PretrainConfig, checkpoints: Path) -> TrainState:
    """Train the decoder of a new VAE, evaluate it, and add an untrained UNet and text encoder."""
    vae = new_vae(config.seed)
    pretrain_vae(
        vae, SurfaceStream(config.seed, config.vae_batch_size), steps=config.vae_steps, lr=config.vae_lr,
        checkpoint=checkpoints / "vae.safetensors", save_every=config.save_every,
        on_step=mean_logger(_LOGGED_EVERY, "vae_"),
    )  # fmt: skip
    held_out = SurfaceStream(HELD_OUT, 64).batch(0, (64, 64)).images
    quality = measure_reconstruction(held_out, decode(vae, encode(vae, held_out)))
    log_values({f"vae_{name}": value for name, value in quality._asdict().items()})
    return new_train_state(vae, config.seed)


def _exporter(train_state: TrainState, sheet_every: int, out: Path) -> OnStep:
    """Return a callback that logs means and, every `sheet_every` steps, writes the base and logs a contact sheet."""
    log_means = mean_logger(_LOGGED_EVERY, "unet_")

    def on_step(step: int, values: dict[str, float]) -> None:
        log_means(step, values)
        if step % sheet_every == 0:
            assemble(train_state).save_pretrained(out)
            _log_sheet(train_state, step)

    return on_step


def _log_sheet(train_state: TrainState, step: int) -> None:
    prompts = [prompt for prompt in PROMPTS for _ in range(_SHOWN)]
    seeds = [number % _SHOWN for number in range(len(prompts))]
    settings = SamplingConfig().resolved("embedded")
    batches = sample(assemble(train_state), prompts, seeds, width=64, height=64, config=settings)
    images = [image for batch in batches for image in batch.images]
    mlflow.log_image(contact_sheet(images, prompts, _SHOWN), artifact_file=f"samples/{step:07d}.png")

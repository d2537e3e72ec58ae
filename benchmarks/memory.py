"""Peak memory on a CPU with the architecture of Stable Diffusion 1.5, as a multiple of its weights.

    python benchmarks/memory.py --size 512

The base has random fp32 weights (4.27 GB). It is written to a temporary folder and opened from there, like the base of
a user. Each measurement runs in its own process. Fine-tuning takes one step with one image, the paper's adapter and
gradient checkpointing; drawing merges an adapter and draws one image in two steps with guidance. The peak is the
maximum resident set size, which includes the pages of mapped weight files.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from inandout.diffusion.base.base import Base, open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.dreambooth import dreambooth
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.lora.adapter import Adapter, AdapterMeta
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.layers import adapted_layers, add_adapter
from inandout.diffusion.lora.merge import merge
from inandout.diffusion.lora.targets import pair_shapes
from inandout.diffusion.pretrain.captions import vocabulary
from inandout.diffusion.pretrain.tokenizer import build_tokenizer
from inandout.diffusion.sample.config import SamplingConfig
from inandout.diffusion.sample.sampler import sample

UNET = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
TEXT_ENCODER = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
PROMPT = "skt background"


def write_base(folder: Path) -> None:
    """Write a pipeline with the architecture of Stable Diffusion 1.5 and the tokenizer of the embedded base."""
    tokenizer = build_tokenizer(vocabulary())
    tokenizer.model_max_length = 77
    ends = {"eos_token_id": len(tokenizer) - 1, "bos_token_id": len(tokenizer) - 2, "pad_token_id": len(tokenizer) - 1}
    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel(**UNET),
            "vae": AutoencoderKL(**VAE),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER, **ends)),
        }
    pipeline = StableDiffusionPipeline(
        **{name: _randomize(part) for name, part in parts.items()}, tokenizer=tokenizer,
        scheduler=DDIMScheduler(**SCHEDULE), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)


def _randomize(model: nn.Module) -> nn.Module:
    """Set norms to the identity and other weights to small values, so that activations stay finite."""
    model.to_empty(device="cpu")
    for name, tensor in model.state_dict().items():
        if name.endswith("position_ids"):
            tensor.copy_(torch.arange(tensor.shape[-1]))
        elif tensor.ndim == 1:
            tensor.fill_(float("norm" in name and name.endswith("weight")))
        else:
            tensor.uniform_(-0.02, 0.02)
    return model


def finetune_step(base: Base, size: int) -> None:
    """Take one step on one image of `size` x `size` px."""
    add_adapter(base.pipeline, AdapterConfig(), 0)
    image = Example(torch.randn(4, size // 8, size // 8), prior=False)
    config = DreamBoothConfig(batch_size=1, repeats=1, gradient_checkpointing=True)
    dreambooth(base, DreamBoothDataset([image], PROMPT, ""), epochs=1, lr=1e-4, config=config, seed=0)


def draw(base: Base, size: int) -> None:
    """Draw one image of `size` x `size` px with a merged adapter."""
    pipeline = merge(base.pipeline, base.fingerprint, _random_adapter(base), 0.65)
    config = SamplingConfig(steps=2).resolved("sd")
    next(sample(pipeline, [PROMPT], [0], width=size, height=size, config=config))


def _random_adapter(base: Base) -> Adapter:
    meta = AdapterMeta(
        config=AdapterConfig(), base=base.fingerprint, instance_prompt=PROMPT, prior_prompt="", clip_skip=1,
        sources=(), code="", seed=0,
    )  # fmt: skip
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in adapted_layers(base.pipeline, meta.config).items():
        shapes = pair_shapes(layer.weight.shape, meta.config.dim_and_alpha(layer.weight.shape)[0])
        tensors |= {f"{name}.lora_{letter}.weight": torch.zeros(shapes[letter == "B"]) for letter in "AB"}
    return Adapter(tensors, meta)


WORK = {"finetune": finetune_step, "draw": draw}


def peak_memory() -> float:
    """Return the peak resident memory of the process in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(work: str, folder: str, size: int) -> None:
    """Run `work` and print one line; call it in a new process."""
    base = open_base(BaseConfig(base=folder))
    parts = (base.pipeline.unet, base.pipeline.vae, base.pipeline.text_encoder)
    weights = sum(parameter.nbytes for part in parts for parameter in part.parameters()) / 1e9
    opened = peak_memory()
    WORK[work](base, size)
    peak = peak_memory()
    print(
        f"{work:8} {size}x{size}: weights {weights:.2f} GB, peak {opened:.2f} GB after opening, "
        f"{peak:.2f} GB at the end, {peak / weights:.2f} times the weights",
        flush=True,
    )


def main() -> None:
    """Print one line per kind of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the image in px (default: 512)")
    parser.add_argument("--base", default="", help="folder of an existing base, for --work")
    parser.add_argument("--work", choices=WORK, help="measure only this in this process; requires --base")
    options = parser.parse_args()
    if options.work:
        measure(options.work, options.base, options.size)
        return
    with TemporaryDirectory() as folder:
        write_base(Path(folder))
        for work in WORK:
            command = [sys.executable, __file__, "--base", folder, "--size", str(options.size), "--work", work]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

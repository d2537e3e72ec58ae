"""Cache of VAE latents beside the database."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from inandout.checkpoint import write_tensors
from inandout.data.images import ImageArray
from inandout.diffusion.base.base import Base
from inandout.diffusion.vae import encode
from inandout.fingerprints import computed_by
from inandout.tracking.store import state_folder


def encode_once(base: Base, images: Sequence[ImageArray]) -> list[Tensor]:
    """Return latents (C, h, w) of images (H, W, 3), on the CPU; cached by the content of image and base.

    Raises:
        InputError: the cache cannot be written.
    """
    code = hashlib.sha256(json.dumps(computed_by(__name__)).encode()).hexdigest()[:16]
    folder = state_folder() / "latents" / f"{base.fingerprint}-{code}"
    folder.mkdir(parents=True, exist_ok=True)
    return [_encode_once(base, image, folder) for image in tqdm(images, "encode", unit="image", disable=None)]


def _encode_once(base: Base, image: ImageArray, folder: Path) -> Tensor:
    content = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()[:32]
    path = folder / f"{content}.safetensors"
    if not path.exists():
        write_tensors(path, {"latent": encode(base.pipeline.vae, image[None])[0]}, {})
    return load_file(path)["latent"]

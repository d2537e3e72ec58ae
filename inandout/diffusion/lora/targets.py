"""The layers of a Stable Diffusion that get an adapter, by the rule of kohya-ss/sd-scripts."""

from collections.abc import Iterator, Mapping, Sequence

from diffusers import Transformer2DModel
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPMLP, CLIPAttention

from inandout.diffusion.pipeline import Pipeline, text_encoders
from inandout.errors import InputError

Layer = nn.Linear | nn.Conv2d

LIERLA, C3 = (Transformer2DModel,), (ResnetBlock2D, Downsample2D, Upsample2D)
"""Blocks of the UNet whose layers are adapted by LoRA-LierLa, and those that LoRA-C3Lier adds.

`conv_in`, `conv_out` and the time embedding are not adapted."""

TEXT = (CLIPAttention, CLIPMLP)
"""Modules of the text encoders whose layers are adapted."""


NAMES_SHOWN = 3
"""Maximum number of weight names in an error message."""


def find_layers(pipeline: Pipeline, c3: bool) -> dict[str, Layer]:
    """Return the layers by name, e.g. `unet.mid_block.resnets.0.conv1`, in the order of the models.

    Args:
        pipeline: has no adapter.
        c3: whether to include the layers of `C3`.
    """
    layers = {f"unet.{name}": layer for name, layer in _inside(pipeline.unet, LIERLA + C3 if c3 else LIERLA)}
    for part, encoder in text_encoders(pipeline).items():
        layers |= {f"{part}.{name}": layer for name, layer in _inside(encoder, TEXT)}
    return layers


def _inside(model: nn.Module, parents: tuple[type, ...]) -> Iterator[tuple[str, Layer]]:
    for prefix, parent in model.named_modules():
        if type(parent) in parents:
            for name, layer in parent.named_modules(prefix=prefix):
                if isinstance(layer, Layer):
                    yield name, layer


def pair_shapes(shape: Sequence[int], dim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of A (dim, in, ...) and B (out, dim, ...) for a layer whose weight has shape (out, in, ...)."""
    out, in_, *kernel = shape
    return (dim, in_, *kernel), (out, dim, *(1 for _ in kernel))


def refuse_misfit(expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor]) -> None:
    """Raise an InputError if a tensor is unknown, missing, or has another shape than `expected`."""
    unknown, missing = tensors.keys() - expected.keys(), expected.keys() - tensors.keys()
    for names, problem in ((unknown, "is not a layer of this model"), (missing, "is missing from the adapter")):
        if names:
            first = ", ".join(sorted(names)[:NAMES_SHOWN])
            raise InputError(
                f"{first} {problem} ({len(names)} of {len(expected)} weights); give a base of the same architecture "
                "and the adapter's own configuration"
            )
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise InputError(
                f"{name}: shape {tuple(tensors[name].shape)} does not fit this model, which needs {shape}; "
                "give a base of the same architecture"
            )

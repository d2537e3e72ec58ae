"""The paper's classifier: torchvision's ResNet-50 with one defect logit (section 5.1)."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, resnet50

from inandout.errors import InputError, brief


class DefectNet(nn.Module):
    """uint8 RGB images (N, 3, H, W), 0..255, to defect logits (N,).

    Scaling and ImageNet normalisation are part of the model, so that training, evaluation and every exported copy
    cannot differ in them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Residual branches that start at zero (Goyal et al. 2017, section 5.1) keep the first logits of random weights
        # small; pretrained weights replace these values.
        self.resnet = resnet50(weights=None, zero_init_residual=True)
        self.resnet.fc = nn.Linear(self.resnet.fc.in_features, 1)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N,); the probability of a defect is their sigmoid."""
        logits: Tensor = self.resnet((images.float() - self.mean) / self.std)
        return logits.flatten()


Weights = Annotated[str, Field(min_length=1, description="start: none, imagenet, or a .safetensors file")]


def build_classifier(weights: str, seed: int) -> DefectNet:
    """A `DefectNet` whose random parts depend on `seed` alone.

    Args:
        weights: `none` (random), `imagenet` (torchvision's IMAGENET1K_V1, downloaded on first use; the paper does not
            say which start it had, its follow-up DIAG uses these), or the path of a .safetensors file with a
            torchvision ResNet-50 state dict, with or without its last layer.
        seed: 0..2**32 - 1.

    Raises:
        InputError: the weights cannot be had, or do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DefectNet()
    if weights != "none":
        state = _imagenet() if weights == "imagenet" else _from_file(Path(weights))
        _load_backbone(model, state, weights)
    return model


def load_classifier(path: Path) -> DefectNet:
    """A trained `DefectNet`, its last layer included, in evaluation mode and with nothing to train.

    Raises:
        InputError: the file is not the state dict of one, as `classify` keeps it.
    """
    model = DefectNet()
    try:
        model.resnet.load_state_dict(load_file(path))
    except Exception as error:  # safetensors raises its own type as well as OSError, torch a RuntimeError
        raise InputError(
            f"{path}: not the weights of a trained classifier ({brief(error)}); give those of a classify run"
        ) from error
    return model.eval().requires_grad_(False)


def _imagenet() -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"weights=imagenet cannot be downloaded ({error}); use weights=none, or save them on another machine as "
            ".safetensors and give the path"
        ) from error
    return state


def _from_file(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise InputError(f"weights={str(path)!r}: must be 'none', 'imagenet' or the path of a .safetensors file")
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type as well as OSError; every one means the same here
        raise InputError(f"weights={str(path)!r}: not a readable .safetensors file ({error})") from error


def _load_backbone(model: DefectNet, state: dict[str, Tensor], name: str) -> None:
    """Load everything but the last layer, which is ours."""
    backbone = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        result = model.resnet.load_state_dict(backbone, strict=False)
    except RuntimeError as error:
        raise InputError(f"weights={name!r}: shapes do not fit a ResNet-50 ({error})") from error
    missing = [key for key in result.missing_keys if not key.startswith("fc.")]
    if missing or result.unexpected_keys:
        raise InputError(
            f"weights={name!r}: not a ResNet-50 state dict; {len(missing)} entries are missing "
            f"and {len(result.unexpected_keys)} unknown, for example {(missing + result.unexpected_keys)[0]!r}"
        )

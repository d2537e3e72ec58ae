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
    """Classifier of uint8 RGB images (N, 3, H, W), 0..255, with defect logits (N,) as output.

    Scaling and ImageNet normalisation are part of the model, so training, evaluation and exported models share them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Zero-initialised residual branches (Goyal et al. 2017, section 5.1) keep the initial logits of random weights
        # small; pretrained weights replace these values.
        self.resnet = resnet50(weights=None, zero_init_residual=True)
        self.resnet.fc = nn.Linear(self.resnet.fc.in_features, 1)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N,); their sigmoid is the probability of a defect."""
        logits: Tensor = self.resnet((images.float() - self.mean) / self.std)
        return logits.flatten()


Weights = Annotated[str, Field(min_length=1, description="initial weights: none, imagenet, or a .safetensors file")]


def build_classifier(weights: str, seed: int) -> DefectNet:
    """Build a `DefectNet` whose random weights depend on `seed` only.

    Args:
        weights: `none` (random), `imagenet` (torchvision's IMAGENET1K_V1, downloaded on first use; the paper does not
            specify its initial weights, its follow-up DIAG uses these), or the path of a .safetensors file with a
            torchvision ResNet-50 state dict, with or without the last layer.
        seed: 0..2**32 - 1.

    Raises:
        InputError: the weights cannot be downloaded or read, or do not match the model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DefectNet()
    if weights != "none":
        state = _imagenet() if weights == "imagenet" else _from_file(Path(weights))
        _load_backbone(model, state, weights)
    return model


def load_classifier(path: Path) -> DefectNet:
    """Load a trained `DefectNet` in evaluation mode, with frozen parameters.

    Raises:
        InputError: the file is not a state dict written by `classify`.
    """
    model = DefectNet()
    try:
        model.resnet.load_state_dict(load_file(path))
    except Exception as error:  # safetensors raises its own type and OSError, torch RuntimeError
        raise InputError(
            f"{path}: not the weights of a trained classifier ({brief(error)}); use the weights of a classify run"
        ) from error
    return model.eval().requires_grad_(False)


def _imagenet() -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = ResNet50_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"weights=imagenet cannot be downloaded ({error}); use weights=none or the path of a .safetensors file "
            "saved on another machine"
        ) from error
    return state


def _from_file(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise InputError(f"weights={str(path)!r}: must be 'none', 'imagenet' or the path of a .safetensors file")
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type and OSError
        raise InputError(f"weights={str(path)!r}: not a readable .safetensors file ({error})") from error


def _load_backbone(model: DefectNet, state: dict[str, Tensor], name: str) -> None:
    """Load all layers except the last one, which has a different shape."""
    backbone = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        result = model.resnet.load_state_dict(backbone, strict=False)
    except RuntimeError as error:
        raise InputError(f"weights={name!r}: shapes do not match a ResNet-50 ({error})") from error
    missing = [key for key in result.missing_keys if not key.startswith("fc.")]
    if missing or result.unexpected_keys:
        raise InputError(
            f"weights={name!r}: not a ResNet-50 state dict: {len(missing)} keys are missing "
            f"and {len(result.unexpected_keys)} unknown, for example {(missing + result.unexpected_keys)[0]!r}"
        )

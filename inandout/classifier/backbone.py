"""The classifier: a network of torchvision with one defect logit; the paper's is a ResNet-50 (section 5.1)."""

import math
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from inandout.checkpoint import write_tensors
from inandout.classifier.config import Backbone, BackboneConfig, Freeze, Head
from inandout.classifier.distance_head import DistanceHead
from inandout.classifier.mask_head import MaskHead
from inandout.errors import InputError, brief
from inandout.files import require_regular


class Network(NamedTuple):
    """A supported network of torchvision."""

    options: dict[str, Any]
    """Arguments of torchvision's constructor. Training draws no random numbers, so that a resumed run is exact."""
    head: str
    """Name of the classification layers, which one linear layer replaces."""
    layers_to_8: int
    """Number of leading convolutional layers down to 1/8 of the image size."""
    layers_to_16: int
    """Number of leading convolutional layers down to 1/16 of the image size; the remaining ones end at 1/32."""
    channels: tuple[int, int]
    """Channels at 1/8 and at 1/16 of the image size."""


class Prediction(NamedTuple):
    """Logits of the two heads."""

    logit: Tensor
    """(N,) logits of the image head."""
    cells: Tensor | None
    """(N, h, w) logits of the mask head at 1/8 of the image size; None without this head."""


# Zero-initialised residual branches (Goyal et al. 2017, section 5.1) keep the initial logits of random weights small;
# pretrained weights replace these values.
NETWORKS: dict[Backbone, Network] = {
    "resnet50": Network({"zero_init_residual": True}, "fc", 6, 7, (512, 1024)),
    "resnet18": Network({"zero_init_residual": True}, "fc", 6, 7, (128, 256)),
    "mobilenet_v2": Network({}, "classifier", 7, 14, (32, 96)),
    "efficientnet_b0": Network({"stochastic_depth_prob": 0.0}, "classifier", 4, 6, (40, 112)),
}


STRIDE = 32
"""Ratio of the sides of an image and of the last feature maps."""
_MASK_HEAD = "mask_head."
"""Prefix of the mask head's tensors in a state dict."""
_DISTANCE_HEAD = "distance_head."
"""Prefix of the distance head's tensors in a state dict."""


class DefectNet(nn.Module):
    """Classifier of uint8 RGB images (N, 3, H, W), 0..255, with defect logits (N,) as output.

    Scaling and ImageNet normalisation are part of the model for all initial weights, so training, evaluation and
    exported models share them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone = "resnet50", freeze: Freeze = "none", head: Head = "image", tile: int = 0
    ) -> None:
        from torchvision.models import get_model  # takes a second to import

        super().__init__()
        self.backbone, self.freeze, self.tile = backbone, freeze, tile
        last = NETWORKS[backbone].head
        self.network = get_model(backbone, weights=None, **NETWORKS[backbone].options)
        *_, linear = getattr(self.network, last).modules()
        setattr(self.network, last, nn.Identity())
        self.last = nn.Linear(linear.in_features, 1)
        self.mask_head = MaskHead(*NETWORKS[backbone].channels) if head == "mask" else None
        self.distance_head: DistanceHead | None = None  # set after training
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) * 255, persistent=False)
        for module in self._frozen():
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N,); their sigmoid is the probability of a defect.

        With a mask head, they combine both heads, see `MaskHead.combine`. A distance head adds to them, see
        `DistanceHead.add`.
        """
        return self.combined(*self.head_inputs(images))

    def head_inputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what the heads read: features and, with a mask or distance head, the feature maps at 1/8 and 1/16.

        The features are (N, C), the mean over the image, or with tiles the maps (N, C, h, w) at 1/32.
        """
        with_maps = self.mask_head is not None or self.distance_head is not None
        if not with_maps and not self.tile:
            return (self.features(images),)
        at_8, at_16 = self.maps(images)
        *_, deepest = self.convolutions()
        at_32 = deepest(at_16)
        features = at_32 if self.tile else adaptive_avg_pool2d(at_32, 1).flatten(1)
        return (features, at_8, at_16) if with_maps else (features,)

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last feature maps (N, C, h, w) of images (N, 3, H, W) at 1/8 and at 1/16 of their size."""
        to_8, to_16, _ = self.convolutions()
        at_8 = to_8(self.normalise(images))
        return at_8, to_16(at_8)

    def heads(self, features: Tensor, *maps: Tensor) -> Prediction:
        """Return the logits of the heads for `head_inputs`."""
        return Prediction(self.logits(features), self.mask_head(*maps) if self.mask_head else None)

    def features(self, images: Tensor) -> Tensor:
        """Return the mean (N, C) of the last convolutional layer over the image, which `last` reads without tiles."""
        features: Tensor = self.network(self.normalise(images))
        return features

    def combined(self, features: Tensor, *maps: Tensor) -> Tensor:
        """Return the logits (N,) of the classifier for `head_inputs`."""
        prediction = self.heads(features, *maps)
        logits = prediction.logit
        if self.mask_head is not None and prediction.cells is not None:
            logits = self.mask_head.combine(logits, prediction.cells)
        return logits if self.distance_head is None else self.distance_head.add(logits, *maps)

    def logits(self, features: Tensor) -> Tensor:
        """Return logits (N,) of features (N, C), or with tiles of maps (N, C, h, w).

        A tile begins at every cell of the maps. The last layer is linear, so the mean of the logits of a tile's cells
        is the logit of its mean features. The logit of the image is the logarithm of the mean of the exponentials of
        its tiles' logits, a smooth maximum (Pinheiro and Collobert 2015): every tile has a gradient, that with the
        highest logit the largest.
        """
        if features.dim() == 2:
            return self.last(features).flatten()
        cells = self.last(features.movedim(1, -1)).movedim(-1, 1)
        side = self.tile // STRIDE
        tiles = avg_pool2d(cells, (min(side, cells.shape[2]), min(side, cells.shape[3])), stride=1)
        scores = tiles.flatten(1)
        return scores.logsumexp(1) - math.log(scores.shape[1])

    def normalise(self, images: Tensor) -> Tensor:
        """Return float images with the mean and standard deviation of ImageNet's colours as zero and one."""
        return (images.float() - self.mean) / self.std

    def convolutions(self) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """Return the convolutional layers down to 1/8 of the image size, from there to 1/16, and from there to 1/32."""
        if hasattr(self.network, "features"):
            body = self.network.features
        else:
            body = nn.Sequential(*[*self.network.children()][:-2])  # all but avgpool and fc
        _, _, at_8, at_16, _ = NETWORKS[self.backbone]
        return body[:at_8], body[at_8:at_16], body[at_16:]

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen layers always stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        if self.freeze == "norm":
            return [module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d)]
        return [self.network] if self.freeze == "all" else []


def build_classifier(config: BackboneConfig, seed: int) -> DefectNet:
    """Build a `DefectNet` whose random weights depend on `seed` only.

    With tiles, the last layer starts at zero: all tiles have the same logit and the same gradient. A random last layer
    would choose the tile that training starts from.

    Args:
        config: `weights` is `none` (random), `imagenet` (torchvision's IMAGENET1K_V1, downloaded on first use; the
            paper does not specify its initial weights, its follow-up DIAG uses these), or the path of a .safetensors
            file with torchvision's state dict of the network, with or without its classification layers.
        seed: 0..2**32 - 1.

    Raises:
        InputError: the weights cannot be downloaded or read, or do not match the network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DefectNet(config.backbone, config.freeze, config.head, config.tile)
    if config.tile:
        nn.init.zeros_(model.last.weight)
        nn.init.zeros_(model.last.bias)
    if config.weights != "none":
        state = _imagenet(config.backbone) if config.weights == "imagenet" else _from_file(Path(config.weights))
        _load_network(model, state, config.weights)
    return model


def save_classifier(model: DefectNet, path: Path) -> None:
    """Write the state dict with torchvision's names, except for the last layer, the mask head and the distance head.

    The metadata name the backbone, the head and the tiles.
    """
    last = NETWORKS[model.backbone].head
    tensors = model.network.state_dict()
    tensors |= {f"{last}.{name}": value for name, value in model.last.state_dict().items()}
    if model.mask_head:
        tensors |= {f"{_MASK_HEAD}{name}": value for name, value in model.mask_head.state_dict().items()}
    if model.distance_head:
        tensors |= {f"{_DISTANCE_HEAD}{name}": value for name, value in model.distance_head.state_dict().items()}
    head = "mask" if model.mask_head else "image"
    write_tensors(path, tensors, {"backbone": model.backbone, "head": head, "smooth_tile": str(model.tile)})


def load_classifier(path: Path) -> DefectNet:
    """Load a trained `DefectNet` in evaluation mode, with frozen parameters.

    Raises:
        InputError: the file was not written by `save_classifier`, or by an older version with another score of tiles.
    """
    require_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            # Files of older versions lack metadata.
            given = file.metadata() or {}
            names: dict[str, Any] = {"backbone": "resnet50", "head": "image", "smooth_tile": "0"} | given
        model = DefectNet(names["backbone"], head=names["head"], tile=int(names["smooth_tile"]))
        tensors = load_file(path)
        if f"{_DISTANCE_HEAD}memory" in tensors:
            model.distance_head = DistanceHead(_checked_memory(model, tensors[f"{_DISTANCE_HEAD}memory"]))
        last = f"{NETWORKS[model.backbone].head}."
        model.load_state_dict({_own_name(name, last): value for name, value in tensors.items()})
    except Exception as error:  # safetensors raises its own type and OSError, torch RuntimeError and ValueError
        raise InputError(
            f"{path}: not the weights of a trained classifier ({brief(error)}); use the weights of a classify run"
        ) from error
    if names.get("tile", "0") != "0":
        raise InputError(
            f"{path}: an older version trained it with the maximum over its tiles as score; train it again"
        )
    return model.eval().requires_grad_(False)


def _checked_memory(model: DefectNet, memory: Tensor) -> Tensor:
    """Return the patches of good parts (M, C) of a file; raise ValueError if the network has other features."""
    channels = sum(NETWORKS[model.backbone].channels)
    if memory.dim() != 2 or not len(memory) or memory.shape[1] != channels:
        raise ValueError(f"{_DISTANCE_HEAD}memory has shape {tuple(memory.shape)}, not (1 or more, {channels})")
    return memory


def _own_name(name: str, last: str) -> str:
    """Return the name of a saved tensor in the state dict; `last` is the prefix of the last layer in the file."""
    if name.startswith((_MASK_HEAD, _DISTANCE_HEAD)):
        return name
    return f"last.{name.removeprefix(last)}" if name.startswith(last) else f"network.{name}"


def _imagenet(backbone: Backbone) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(backbone)["IMAGENET1K_V1"]
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"weights=imagenet cannot be downloaded ({error}); use weights=none or the path of a .safetensors file "
            "saved on another machine"
        ) from error
    return state


def _from_file(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise InputError(f"weights={str(path)!r}: must be 'none', 'imagenet' or the path of a .safetensors file")
    require_regular(path)
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own type and OSError
        raise InputError(f"weights={str(path)!r}: not a readable .safetensors file ({error})") from error


def _load_network(model: DefectNet, state: dict[str, Tensor], weights: str) -> None:
    """Load all layers except the classification layers, which have another shape."""
    heads = (f"{NETWORKS[model.backbone].head}.", _MASK_HEAD, _DISTANCE_HEAD)
    given = {name: value for name, value in state.items() if not name.startswith(heads)}
    expected = model.network.state_dict()
    required = {name for name in expected if not name.endswith("num_batches_tracked")}  # absent from old files
    wrong = {
        "missing": sorted(required - given.keys()),
        "unknown": sorted(given.keys() - expected.keys()),
        "of another shape": [name for name in given if name in expected and given[name].shape != expected[name].shape],
    }
    found = [f"{len(names)} tensors are {what}, for example {names[0]!r}" for what, names in wrong.items() if names]
    if found:
        raise InputError(
            f"weights={weights!r}: not a state dict of backbone={model.backbone}: {'; '.join(found)}; give the weights "
            "of this network, with torchvision's names, or another backbone"
        )
    model.network.load_state_dict(given, strict=False)

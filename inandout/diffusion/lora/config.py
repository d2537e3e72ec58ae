"""Options of adapters."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field


class AdapterConfig(BaseModel):
    """Ranks and alphas of the adapter, named as in kohya's scripts; the defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network_dim: int = Field(default=32, ge=1, le=1024, description="rank in linear layers and 1x1 convolutions")
    network_alpha: float = Field(
        default=16, gt=0, le=1024, description="scale in these layers: network_alpha / network_dim times the update"
    )
    conv_dim: int = Field(
        default=4,
        ge=0,
        le=1024,
        description="rank in 3x3 convolutions; 0 = adapt only the transformer blocks (LoRA-LierLa)",
    )
    conv_alpha: float = Field(
        default=1, gt=0, le=1024, description="scale in 3x3 convolutions: conv_alpha / conv_dim times the update"
    )

    def dim_and_alpha(self, shape: Sequence[int]) -> tuple[int, float]:
        """Return rank and alpha of a layer from the shape of its weight or of its A."""
        if kind_of(shape) == "conv3x3":
            return self.conv_dim, self.conv_alpha
        return self.network_dim, self.network_alpha


def kind_of(shape: Sequence[int]) -> str:
    """Return `linear`, `conv1x1` or `conv3x3`, from the shape of a layer's weight or of its A."""
    if len(shape) == 2:
        return "linear"
    return "conv1x1" if tuple(shape[2:]) == (1, 1) else "conv3x3"

"""Configurations of `filter`, `distance` and `probe-shortcut`."""

from pydantic import Field

from inandout.options import Fresh, StageConfig


class FilterConfig(StageConfig):
    """Options of `filter`."""

    pool: str = Field("", description="run id or folder of the pool")
    run: str = Field(
        "", description="run id of a classify that was not trained on this pool; its network gives the features"
    )
    quantile: float = Field(
        0.95, gt=0, lt=1, description="minimum share of unseen good parts that each threshold rejects"
    )
    fresh: Fresh = False


class DistanceConfig(StageConfig):
    """Options of `distance`."""

    model: str = Field(
        "", description="run id of a classify, whose network gives the features and whose options give the data"
    )
    pools: str = Field("", description="run ids or folders of pools of that data, separated by commas")
    fresh: Fresh = False


class ProbeShortcutConfig(StageConfig):
    """Options of `probe-shortcut`."""

    run: str = Field("", description="run id of the classify to probe")
    base: str = Field("", description="base whose VAE encodes and decodes good parts; empty = base of the run")
    base_config: str = Field("", description="for a base in a single .safetensors file, as in classify")
    fresh: Fresh = False

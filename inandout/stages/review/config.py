"""Configuration of `review`."""

from pydantic import Field

from inandout.stages.pools.config import DdpmConfig


class ReviewConfig(DdpmConfig):
    """Images to review, options of the prompt lab, and address of the page."""

    pool: str = Field(
        "",
        description="run id of augment, extend-pool or label-errors, or a folder with a manifest.csv; empty = the "
        "prompt lab, which uses all options except host and port",
    )
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address to listen on; addresses other than localhost require a token",
    )
    port: int = Field(8765, ge=0, le=65535, description="port to listen on; 0 = any free port")

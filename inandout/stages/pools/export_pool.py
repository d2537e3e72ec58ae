"""Entry point `export-pool`, which opens no run: write a pool in the format of another program."""

from pathlib import Path

from inandout.data.annotations.export import write_annotated
from inandout.errors import InputError
from inandout.stages.pools.config import ExportPoolConfig
from inandout.stages.pools.pool import open_pool
from inandout.tracking.store import connect


def export_pool(config: ExportPoolConfig) -> None:
    """Write the images of a pool with their masks; images without a visible mask are left out.

    Raises:
        InputError: `pool` is empty or no pool, or see `write_annotated`.
    """
    if not config.pool:
        raise InputError("pool is empty; give the folder or the run id of a pool")
    connect()
    rows = open_pool(config.pool).samples
    count = write_annotated(rows, Path(config.out), config.format)
    print(f"{config.out}: {count} of {len(rows)} images as {config.format}")

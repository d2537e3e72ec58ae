from pathlib import Path

import pytest

from inandout.data.readers import scan_data
from inandout.errors import InputError
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig, ExportPoolConfig
from inandout.stages.pools.export_pool import export_pool
from tests.conftest import SIDE


def test_a_pool_is_exported_by_its_run_id(tiny: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="pool is empty"):
        export_pool(ExportPoolConfig())
    pool = augment(AugmentConfig.from_flat(data=str(tiny), n_aug=3, width=SIDE, height=SIDE))
    export_pool(ExportPoolConfig(pool=pool.run_id, format="yolo", out="out"))
    assert "out: 3 of 3 images as yolo" in capsys.readouterr().out
    samples = scan_data(Path("out")).samples
    assert [(sample.label, sample.split) for sample in samples] == [(1, "train")] * 3

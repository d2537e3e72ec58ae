from pathlib import Path

import mlflow

from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.stages.pools.pool import Pool
from tests.conftest import SIDE


def make(tiny: Path, **changes: object) -> Pool:
    options = {"data": str(tiny), "source": "memseg", "n_aug": 12, "width": SIDE, "height": SIDE}
    return augment(AugmentConfig.from_flat(**options | changes))


def gallery(pool: Pool) -> str:
    return Path(
        mlflow.artifacts.download_artifacts(run_id=pool.run_id, artifact_path="gallery/index.html")
    ).read_text()  # fmt: skip


def test_a_pool_logs_its_shares_of_images_that_look_like_good_parts(tiny: Path, project: Path) -> None:
    pool = make(tiny, val_share=0, max_area=0.05, textures="", opacity_min=0.15)
    shares = {
        name.removeprefix("share_in_"): value
        for name, value in mlflow.get_run(pool.run_id).data.metrics.items()
        if name.startswith("share_in_")
    }
    assert shares.keys() == {"colour", "light", "texture", "product"}
    assert shares["light"] > 0.5, "small anomalies hardly change the median"
    assert shares["product"] <= min(shares["colour"], shares["light"], shares["texture"])
    assert f"12 memseg images, {shares['product']:.0%} with the colour, light and texture" in gallery(pool)


def test_fewer_than_twenty_good_parts_give_no_shares(tiny: Path, project: Path) -> None:
    pool = make(tiny, val_share=0.2)
    assert not [name for name in mlflow.get_run(pool.run_id).data.metrics if name.startswith("share_in_")]
    assert "12 memseg images<" in gallery(pool)

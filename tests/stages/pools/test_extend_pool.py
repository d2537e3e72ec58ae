import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from inandout.data.images import read_image
from inandout.data.manifest import digest
from inandout.errors import InputError
from inandout.stages.config import FinetuneConfig
from inandout.stages.finetune import finetune
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig, ExtendPoolConfig
from inandout.stages.pools.decisions import kept_rows, load_review
from inandout.stages.pools.extend_pool import extend_pool
from inandout.stages.pools.pool import Pool
from inandout.stages.review import run as review_stage
from inandout.stages.review.config import ReviewConfig
from inandout.stages.review.run import review
from tests.conftest import SIDE, pointer_to
from tests.stages.review.test_run import decide, make
from tests.stages.test_finetune import QUICK

pytestmark = pytest.mark.slow

DRAWN = {
    "steps": 2,
    "guidance": 2,
    "scheduler": "dpm++",
    "sample_batch": 4,
    "shot": "zero",
    "width": SIDE,
    "height": SIDE,
}


def draw(tiny: Path, base: Path, n: int = 6) -> Pool:
    quick = {"data": str(tiny), "base": str(base)} | QUICK | {"lr": 0.05}
    adapter = finetune(FinetuneConfig.from_flat(**quick)).adapter
    options = {"source": "ddpm", "data": str(tiny), "base": str(base), "adapter": str(adapter), "n_aug": n, "alpha": 1}
    return augment(AugmentConfig.from_flat(**options, prompts="pits | dents", **DRAWN))


def test_an_extended_pool_has_certified_prompts_new_seeds_and_old_decisions(
    tiny: Path, tiny_base: Path, project: Path
) -> None:
    pool = draw(tiny, tiny_base)
    decide(pool, "Anna", "keep", "reject", "keep", "reject", "reject", "reject")
    suggestion = suggested_command(pool, 4)
    assert suggestion.group(2) == "3", "2 are missing, and 2 of 3 images of pits were kept"
    more = extend_pool(ExtendPoolConfig(pool=suggestion.group(1), n_aug=int(suggestion.group(2))))
    assert [digest(row.image) for row in more.samples[:6]] == [digest(row.image) for row in pool.samples]
    assert [row.prompt for row in more.samples[6:]] == ["pits"] * 3
    assert len({row.seed for row in more.samples}) == 9
    assert len({digest(row.image) for row in more.samples}) == 9
    rows, _, decisions = load_review(more.samples)
    assert [row.review for row in rows] == ["keep", "reject", "keep", "reject", "reject", "reject", "", "", ""]
    assert {decision.reviewer for decision in decisions} == {"Anna"}
    assert extend_pool(ExtendPoolConfig(pool=pointer_to(pool.run_id), n_aug=3)).run_id == more.run_id


def suggested_command(pool: Pool, needed: int) -> re.Match[str]:
    """Return the command that the error about too few kept images suggests."""
    with pytest.raises(InputError) as caught:
        kept_rows("ddpm_pool", pool.run_id, load_review(pool.samples)[0], needed)
    found = re.search(r"extend-pool --pool (\w+) --n-aug (\d+)", str(caught.value))
    assert found is not None, caught.value
    return found


def test_an_extended_memseg_pool_can_be_reviewed_and_extended_again(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make(tiny)
    decide(pool, "Anna", "", "reject")
    with pytest.raises(InputError, match="no finished review kept an image"):
        extend_pool(ExtendPoolConfig(pool=pool.run_id))
    decide(pool, "Ben", "keep")
    once = extend_pool(ExtendPoolConfig(pool=pool.run_id, n_aug=2))
    twice = extend_pool(ExtendPoolConfig(pool=once.run_id, n_aug=3))
    assert len({digest(row.image) for row in twice.samples}) == len({row.seed for row in twice.samples}) == 11
    assert all(row.mask is not None and row.mask.exists() for row in twice.samples)

    def look(app: FastAPI, *_: object) -> None:
        session = TestClient(app).get("/api/session").json()
        assert [image["has_source"] for image in session["images"]] == [True] * 11
        assert TestClient(app).get("/api/updates").json()["summary"]["reviewers"] == {"Anna": 1, "Ben": 1}

    monkeypatch.setattr(review_stage, "serve", look)
    review(ReviewConfig(pool=twice.run_id))


def test_a_folder_cannot_be_extended(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the run id"):
        extend_pool(ExtendPoolConfig(pool=str(tmp_path)))


def test_an_inpainted_pool_cannot_be_extended(tiny: Path, tiny_base: Path, project: Path) -> None:
    options = {"source": "inpaint", "data": str(tiny), "base": str(tiny_base), "adapter": "none", "n_aug": 2}
    pool = augment(AugmentConfig.from_flat(**options, prompts="pits", **DRAWN))
    decide(pool, "Anna", "keep", "keep")
    with pytest.raises(InputError, match="an inpainted pool cannot be extended; generate a larger pool with augment"):
        extend_pool(ExtendPoolConfig(pool=pool.run_id))


def test_the_page_shows_the_same_seed_at_alpha_zero(
    tiny: Path, tiny_base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = draw(tiny, tiny_base, 2)

    def look(app: FastAPI, *_: object) -> None:
        client = TestClient(app)
        image = client.get("/api/session").json()["images"][0]
        assert (image["has_preview"], image["has_source"]) == (True, False)
        while (preview := client.get(f"/api/base-preview/{image['id']}").json())["state"] == "drawing":
            pass
        assert preview["state"] == "ready", preview
        assert client.get(f"/change/{image['id']}").status_code == 200

    monkeypatch.setattr(review_stage, "serve", look)
    review(ReviewConfig(pool=pool.run_id))
    (preview,) = Path(".inandout/review").glob("*/alpha-0/*.png")
    config = mlflow.artifacts.load_dict(f"runs:/{pool.run_id}/drawn_with.json")
    base_alone = augment(AugmentConfig.from_flat(**config | {"source": "ddpm", "alpha": 0}))
    apart = np.abs(read_image(preview).astype(int) - read_image(base_alone.samples[0].image))
    assert apart.max() <= 1, "images of another batch may differ by one grey level"
    assert np.abs(read_image(preview).astype(int) - read_image(pool.samples[0].image)).max() > 1

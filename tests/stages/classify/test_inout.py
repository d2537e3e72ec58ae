"""The whole method: missing results are fine-tuned, sampled and mixed; existing ones are reused."""

from pathlib import Path

import mlflow
import pytest

from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify
from tests.conftest import SIDE, shrink_presets

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a tiny preset and few steps; skip the export of the model."""
    shrink_presets(monkeypatch)
    monkeypatch.setattr("inandout.stages.classify.train._log_model", lambda model, pixels: None)


def train(tiny: Path, tiny_base: Path, **changes: object) -> Result:
    small = {"n_aug": 5, "width": SIDE, "height": SIDE, "epochs": 1, "batch_size": 8, "shot": "zero"}
    small |= {"backbone": "resnet18"}
    return classify(ClassifyConfig.from_flat(**{"data": str(tiny), "base": str(tiny_base)} | small | changes))


def stages() -> list[str]:
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run.data.tags["inandout.stage"] for run in runs]


def n_generated(project: Path) -> int:
    return len(list((project / ".inandout" / "generated").rglob("*.png")))


def test_classify_generates_missing_results_and_reuses_existing_ones(
    tiny: Path, tiny_base: Path, project: Path
) -> None:  # fmt: skip
    run = mlflow.get_run(train(tiny, tiny_base, ddpm_ratio=0.5).run_id)
    assert (run.data.params["n_train_ddpm_positives"], run.data.params["n_train_memseg_positives"]) == ("2", "3")
    assert sorted(stages()) == ["augment", "augment", "classify", "finetune"]
    assert n_generated(project) == 3 + 2
    train(tiny, tiny_base, ddpm_ratio=1.0)
    assert stages().count("finetune") == 1, "another ratio needs no other fine-tuning"
    assert n_generated(project) == 3 + 5, "another ratio reuses existing images"
    train(tiny, tiny_base, ddpm_ratio=0.5, alpha=0.3)
    assert stages().count("finetune") == 1, "another alpha needs no other fine-tuning"
    assert n_generated(project) == 3 + 5 + 2


def test_a_mix_without_diffusion_images_runs_no_diffusion(tiny: Path, tiny_base: Path, project: Path) -> None:
    train(tiny, tiny_base, ddpm_ratio=0.0)
    train(tiny, tiny_base, ddpm_ratio=0.5, n_aug=1)
    assert set(stages()) == {"augment", "classify"}
    assert not (project / ".inandout" / "generated").exists()


def test_the_logged_alpha_is_the_resolved_value(
    tiny: Path, tiny_base: Path, project: Path
) -> None:  # fmt: skip
    run_id = train(tiny, tiny_base, ddpm_ratio=0.5).run_id
    found = mlflow.search_runs(
        search_all_experiments=True, filter_string="params.alpha = '0.6'", output_format="list"
    )  # fmt: skip
    assert sorted(run.data.tags["inandout.stage"] for run in found) == ["augment", "classify"]
    (pool,) = [run for run in found if run.data.tags["inandout.stage"] == "augment"]
    assert {name: pool.data.params[name] for name in ("guidance", "steps", "scheduler", "prompts")} == {
        "guidance": "2.0", "steps": "2", "scheduler": "dpm++",
        "prompts": "skt background cracked|skt background scratched",
    }  # fmt: skip
    assert train(tiny, tiny_base, ddpm_ratio=0.5, alpha=0.6, guidance=2).run_id == run_id, "resolved defaults"
    given = mlflow.get_run(train(tiny, tiny_base, ddpm_ratio=0.5, ddpm_pool=pool.info.run_id, alpha=0.1).run_id)
    assert given.data.params["alpha"] == "0.6", "alpha of the pool"
    without = mlflow.get_run(train(tiny, tiny_base, ddpm_ratio=0.0, alpha=0.1).run_id)
    assert without.data.params["alpha"] == "None"
    (tuned,) = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.`inandout.stage` = 'finetune'", output_format="list"
    )  # fmt: skip
    assert [tuned.data.params[name] for name in ("epochs", "lr", "n_prior")] == ["1", "0.001", "3"]

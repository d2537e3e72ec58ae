"""The whole method: what is missing is fine-tuned, sampled and mixed; what is there is used."""

from pathlib import Path

import mlflow
import pytest

from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.train import Result, classify
from tests.conftest import SIDE, shrink_presets

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny profile and few steps, and no export of the model."""
    shrink_presets(monkeypatch)
    monkeypatch.setattr("inandout.stages.classify.train._log_model", lambda model, pixels: None)


def train(tiny: Path, tiny_base: Path, **changes: object) -> Result:
    small = {"n_aug": 5, "width": SIDE, "height": SIDE, "epochs": 1, "batch_size": 8, "shot": "zero"}
    return classify(ClassifyConfig.from_flat(**{"data": str(tiny), "base": str(tiny_base)} | small | changes))


def stages() -> list[str]:
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run.data.tags["inandout.stage"] for run in runs]


def drawn(project: Path) -> int:
    return len(list((project / ".inandout" / "generated").rglob("*.png")))


def test_one_command_does_what_is_missing_and_reuses_what_is_there(
    tiny: Path, tiny_base: Path, project: Path
) -> None:  # fmt: skip
    run = mlflow.get_run(train(tiny, tiny_base, ddpm_ratio=0.5).run_id)
    assert (run.data.params["n_train_ddpm_positives"], run.data.params["n_train_memseg_positives"]) == ("2", "3")
    assert sorted(stages()) == ["augment", "augment", "classify", "finetune"]
    assert drawn(project) == 3 + 2
    train(tiny, tiny_base, ddpm_ratio=1.0)
    assert stages().count("finetune") == 1, "another ratio is no reason to fine-tune"
    assert drawn(project) == 3 + 5, "nor to draw an image again"
    train(tiny, tiny_base, ddpm_ratio=0.5, alpha=0.3)
    assert stages().count("finetune") == 1, "another alpha is no reason to fine-tune"
    assert drawn(project) == 3 + 5 + 2


def test_no_diffusion_image_costs_no_diffusion(tiny: Path, tiny_base: Path, project: Path) -> None:
    train(tiny, tiny_base, ddpm_ratio=0.0)
    train(tiny, tiny_base, ddpm_ratio=0.5, n_aug=1)
    assert set(stages()) == {"augment", "classify"}
    assert not (project / ".inandout" / "generated").exists()


def test_the_parameter_alpha_of_a_run_is_the_number_that_was_used(
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
    assert train(tiny, tiny_base, ddpm_ratio=0.5, alpha=0.6, guidance=2).run_id == run_id, "the same was asked for"
    given = mlflow.get_run(train(tiny, tiny_base, ddpm_ratio=0.5, ddpm_pool=pool.info.run_id, alpha=0.1).run_id)
    assert given.data.params["alpha"] == "0.6", "that of the pool"
    without = mlflow.get_run(train(tiny, tiny_base, ddpm_ratio=0.0, alpha=0.1).run_id)
    assert without.data.params["alpha"] == "None"
    (tuned,) = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.`inandout.stage` = 'finetune'", output_format="list"
    )  # fmt: skip
    assert [tuned.data.params[name] for name in ("epochs", "lr", "n_prior")] == ["1", "0.001", "3"]

"""The search as a user runs it; all tests but the last replace classifiers by numbers."""

from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from inandout.__main__ import main
from inandout.classifier.pixels import Pixels, load_pixels
from inandout.data.config import Geometry
from inandout.data.manifest import read_manifest
from inandout.errors import InputError
from inandout.stages.search.run import search
from inandout.tracking.runs import artifact_folder
from tests.conftest import SIDE, shrink_presets
from tests.search.stub import MODULE, config, hill, install, start, work

pytestmark = pytest.mark.slow


def runs(stage: str) -> list[Run]:
    """Return the runs of a stage in all experiments, oldest first."""
    found = mlflow.search_runs(search_all_experiments=True, output_format="list")
    chosen = [run for run in found if run.data.tags.get("inandout.stage") == stage]
    return sorted(chosen, key=lambda run: run.info.start_time)


def parent(run: Run) -> str | None:
    return run.data.tags.get("mlflow.parentRunId")


def point(run: Run) -> tuple[float, float]:
    return float(run.data.params["alpha"]), float(run.data.params["ddpm_ratio"])


def patch_with(monkeypatch: pytest.MonkeyPatch, value: object = hill) -> list[object]:
    return install(lambda name, new: monkeypatch.setattr(f"{MODULE}.{name}", new), value)  # type: ignore[arg-type,return-value]


def test_a_study_is_a_tree_of_runs_with_metrics_and_figures_and_can_be_extended(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    calls = patch_with(monkeypatch, lambda config: 0.9 - 0.02 * len(calls))
    search(config(tiny, n_trials=6))
    (study,) = runs("search")
    trials = runs("trial")
    assert study.info.status == "FINISHED"
    assert [parent(trial) for trial in trials] == [study.info.run_id] * 6
    assert [trial.info.run_name for trial in trials] == [f"trial-00{number}" for number in range(6)]
    assert point(trials[0]) == (1.0, 0.5)
    assert len({point(trial) for trial in trials}) == 6
    first = trials[0].data.metrics
    assert (first["val_ap"], first["val_precision"], first["val_recall"]) == pytest.approx((0.87, 0.5, 0.25))
    assert first["seconds_outside_training"] > 0
    assert first["diffusion_images"] == 10, "five per seed"
    names = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(trials[0].info.run_id)}
    assert "samples.png" in names
    assert [parent(seed) for seed in runs("validate")].count(trials[0].info.run_id) == 2
    assert [trial.data.tags.get("inandout.pruned") for trial in trials] == [None] * 5 + ["True"]
    assert (trials[5].info.status, len(calls)) == ("FINISHED", 11), "pruned after one of two seeds"
    figures = {
        Path(artifact.path).stem for artifact in mlflow.MlflowClient().list_artifacts(study.info.run_id, "study")
    }
    assert {"history", "importance", "contour", "slice"} <= figures
    sums = study.data.metrics
    assert (sums["n_complete"], sums["n_pruned"], sums["n_fail"]) == (5, 1, 0)
    assert sums["best_val_ap"] == pytest.approx(0.87)
    assert study.data.tags["inandout.objective"] == "AP of a stub, real"
    search(config(tiny, n_trials=6))
    assert len(runs("trial")) == 6, "n_trials is the total"
    search(config(tiny, n_trials=8))
    assert len({point(trial) for trial in runs("trial")}) == 8
    assert [run.info.run_id for run in runs("search")] == [study.info.run_id]


@pytest.mark.parametrize("broken", [float("inf"), float("nan")])
def test_non_finite_values_fail_their_trial(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    calls: list[object] = []
    calls = patch_with(monkeypatch, lambda config: broken if len(calls) == 3 else 0.5)
    assert "trial 0" in search(config(tiny, n_trials=3))
    assert [trial.info.status for trial in runs("trial")] == ["FINISHED", "FAILED", "FINISHED"]
    assert (runs("search")[0].data.metrics["n_fail"], runs("search")[0].data.metrics["best_val_ap"]) == (1, 0.5)


def test_a_study_without_finished_trials_reports_the_reason(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch_with(monkeypatch, lambda config: float("nan"))
    with pytest.raises(InputError, match=r"all 2 trials failed, the first with: .* not within 0..1"):
        search(config(tiny, n_trials=2))
    assert runs("search")[0].info.status == "FAILED"


@pytest.mark.torture
def test_two_workers_finish_the_trials_of_a_killed_worker(tiny: Path, project: Path) -> None:
    killed = start(tiny, n_trials=5, deadly=3)
    errors = [killed.communicate(timeout=300)[1]]
    workers = [start(tiny, n_trials=5, deadly=-1) for _ in range(2)]
    errors += [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in (killed, *workers)] == [-9, 0, 0], errors
    (study,) = runs("search")
    assert study.info.status == "FINISHED"
    done = [trial for trial in runs("trial") if trial.info.status == "FINISHED"]
    (dead,) = [trial for trial in runs("trial") if trial.info.status != "FINISHED"]
    assert dead.info.status == "KILLED"
    assert len({point(trial) for trial in done}) == len(done) == 5
    assert point(dead) in {point(trial) for trial in done}, "its point is run again"
    assert {parent(trial) for trial in done} == {study.info.run_id}
    assert [seed.info.status for seed in runs("validate") if parent(seed) == dead.info.run_id].count("KILLED") == 1
    assert "RUNNING" not in {run.info.status for run in runs("validate")}


@pytest.mark.torture
def test_workers_of_a_command_share_its_study(tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch_with(monkeypatch)
    monkeypatch.setattr(f"{MODULE}._work", work)
    search(config(tiny, n_trials=4, workers=2))
    (study,) = runs("search")
    assert [parent(trial) for trial in runs("trial")] == [study.info.run_id] * 4
    assert len({point(trial) for trial in runs("trial")}) == 4
    assert {trial.data.tags["inandout.process"] for trial in runs("trial")} != {study.data.tags["inandout.process"]}


def test_an_interrupted_trial_is_run_by_the_next_call(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(config: object) -> float:
        raise KeyboardInterrupt

    patch_with(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(config(tiny, n_trials=2))
    assert [runs(stage)[0].info.status for stage in ("search", "trial", "validate")] == ["KILLED"] * 3
    patch_with(monkeypatch)
    search(config(tiny, n_trials=2))
    assert runs("search")[0].info.status == "FINISHED"
    killed, again, other = runs("trial")
    assert point(killed) == point(again) != point(other)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--n-aug=1"], "n_aug = 1: must be 2 or more"),
        (["--seeds=1,2", "--fresh-seeds=2"], "fresh_seeds = 2: 2 is also in seeds"),
        (["--alpha-step=0.07"], "alpha_step = '0.07': must be .05 or .1"),
        (["--also=lr,epochs"], "also = 'lr,epochs'"),
        (["--storage=sqlite:///x"], "only postgresql+psycopg:// is supported"),
        (["--objective=real", "--n-held-out=1"], "n_held_out = '1'"),
        (["--n-aug=2", "--n-trials=24"], "n_trials = 24: the space has 23 points"),
    ],
)
def test_invalid_search_options_raise_an_error(
    arguments: list[str], expected: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["search", *arguments])
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_search_fine_tunes_once_draws_once_per_alpha_and_uses_the_test_part_last(
    tiny: Path, tiny_base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_presets(monkeypatch)
    monkeypatch.setattr("inandout.stages.classify.train._log_model", lambda model, pixels: None)
    read: list[tuple[str, str]] = []

    def watched(paths: Sequence[Path], geometry: Geometry) -> Pixels:
        active = mlflow.active_run()
        assert active is not None
        stage = mlflow.get_run(active.info.run_id).data.tags["inandout.stage"]
        read.extend((stage, path.name) for path in paths)
        return load_pixels(paths, geometry)

    monkeypatch.setattr("inandout.stages.classify.part.load_pixels", watched)
    test_names = {sample.image.name for sample in read_manifest(tiny) if sample.split == "test"}
    options = {"base": str(tiny_base), "shot": "zero", "n_aug": 4, "epochs": 1, "n_held_out": 4, "val_share": 0.2}
    conclusion = search(config(tiny, n_trials=2, **options))
    assert conclusion.startswith(("The search paid:", "The search did not pay"))
    assert len(runs("finetune")) == 1
    drawn = [run for run in runs("augment") if "alpha" in run.data.params]
    alphas = {point(trial)[0] for trial in runs("trial") if point(trial)[1] * 4 >= 1}
    assert len(drawn) == 1 + len(alphas), "one held out and one per alpha, shared by seeds and finalists"
    validated = [run for run in runs("validate") if run.info.status == "FINISHED"]
    assert len(validated) == 4
    assert all(not any(name.startswith(("ap", "oracle")) for name in run.data.metrics) for run in validated)
    read_by = {stage: {name for stage_, name in read if stage_ == stage} for stage, _ in read}
    assert set(read_by) == {"validate", "classify"}
    assert not read_by["validate"] & test_names
    assert test_names <= read_by["classify"]
    for run in validated:
        logged = (
            artifact_folder(run.info.run_id, "manifest.csv").read_text()
            + artifact_folder(run.info.run_id, "scores.csv").read_text()
        )
        assert "test" not in {row.split(",")[1] for row in logged.splitlines()}
        assert not any(f"/{name}," in logged for name in test_names)
    (study,) = runs("search")
    assert "proxy" in study.data.tags["inandout.objective"]
    assert study.data.metrics["seconds_outside_training_mean"] > 0
    assert 0 <= study.data.metrics["share_of_diffusion_reused"] < 1
    before = len(runs("classify"))
    assert search(config(tiny, n_trials=2, **options)) == conclusion
    assert len(runs("classify")) == before, "the test part was measured once"
    assert SIDE == 32

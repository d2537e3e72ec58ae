"""The paper's tables as commands: training, reuse, reports and cost."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from mlflow.entities import Run

from inandout.__main__ import main
from inandout.classifier.backbone import DefectNet
from inandout.classifier.frequency_sampler import FrequencySampler
from inandout.data.prepare import CheckedData, read_data
from inandout.errors import InputError
from inandout.evaluation.paired_test import Comparison, Difference
from inandout.hardware import Hardware, HardwareConfig
from inandout.parallel import ParallelConfig, run_all
from inandout.reporting.tables import unpack
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.synthetic import make_pool
from inandout.stages.classify.train import classify
from inandout.stages.experiment.cells import measure_cells
from inandout.stages.experiment.config import GRIDS, ExperimentConfig, Grid, ReportConfig
from inandout.stages.experiment.cost import cheapest_first
from inandout.stages.experiment.missing import missing_images
from inandout.stages.experiment.paired_tests import conclusion
from inandout.stages.experiment.report import report
from inandout.stages.experiment.run import experiment, plan, plan_experiment
from inandout.stages.pools.text2img import STRIP
from inandout.tracking.runs import FINGERPRINT, STAGE, artifact_folder
from inandout.tracking.store import connect
from tests.conftest import SIDE, shrink_presets

pytestmark = pytest.mark.slow

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tiny_base: Path) -> None:
    """Use a tiny base and preset, few steps and bootstrap rounds; skip the export of the model."""
    from inandout.stages.experiment.config import PROFILES

    monkeypatch.setitem(PROFILES, "tiles", PROFILES["tiles"] | {"base": str(tiny_base)})

    shrink_presets(monkeypatch)
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda model, pixels: None)
    monkeypatch.setattr("inandout.evaluation.paired_test.paired_difference.__defaults__", (0, 20))


def config(tiny: Path, **changes: object) -> ExperimentConfig:
    small = {"width": SIDE, "height": SIDE, "epochs": 1, "batch_size": 8, "n_augs": "2,4", "seeds": "0,1"}
    small |= {"backbone": "resnet18"}
    return ExperimentConfig.from_flat(**{"data": str(tiny), "profile": "tiles"} | small | changes)


def runs(stage: str = "") -> list[Run]:
    """Return the runs of a stage, or all runs."""
    found = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run for run in found if not stage or run.data.tags.get(STAGE) == stage]


def without_run(page: str) -> str:
    """Return a page without its last section, which names the run."""
    return page.partition("## How it was made")[0]


def test_a_table_is_trained_once_and_reported_in_four_formats(tiny: Path, project: Path) -> None:
    text = experiment(config(tiny, name="table1", seeds="0", n_augs="2,80"))
    assert "| zero | MemSeg | 80" in text
    assert "0.514 (0.026)" in text, "the result of the paper"
    assert "DDPM against MemSeg" in text
    (run,) = runs("experiment")
    names = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    reported = {"results.html", "results.md", "results.tex", "results.csv", "results.png", "differences.png"}
    assert reported | {"rows.json", "manifest.csv"} <= names
    rows = unpack(artifact_folder(run.info.run_id, "rows.json").read_text())
    assert [(row.source, row.n_aug) for row in rows] == [("MemSeg", 2), ("MemSeg", 80), ("DDPM", 2), ("DDPM", 80)]
    trained = len(runs("classify"))
    assert report(ReportConfig(name="table1", profile="tiles")) == text
    again = experiment(config(tiny, name="table1", seeds="0", n_augs="2,80"))
    assert without_run(again) == without_run(text)
    assert len(runs("classify")) == trained == 4


@pytest.mark.torture
def test_two_workers_reuse_cells_of_one_worker(tiny: Path, project: Path) -> None:
    with pytest.raises(InputError, match="no experiment table6 tiles"):
        report(ReportConfig(name="table6", profile="tiles"))
    in_turn = experiment(config(tiny, name="table5", n_augs="2", seeds="0"))
    (first,) = runs("experiment")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs("classify")} == {first.info.run_id}
    side_by_side = experiment(config(tiny, name="table5", n_augs="2", seeds="0", workers=2))
    assert without_run(side_by_side) == without_run(in_turn), "all cells are reused"
    assert len(runs("classify")) == 2


def test_a_failed_cell_does_not_stop_the_others(tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inandout.stages.experiment import cells

    original = classify

    def fails_once(config: object, data: object) -> object:
        if config.seed == 0 and config.mix.n_aug == 0:  # type: ignore[attr-defined]
            raise InputError("a full disk")
        return original(config, data)  # type: ignore[arg-type]

    monkeypatch.setattr(cells, "classify", fails_once)
    with pytest.raises(InputError, match=r"1 of 4 cells failed, .* shot=full source=none n_aug=0 seed=0: a full disk"):
        experiment(config(tiny, name="table5", n_augs="2"))
    assert len(runs("classify")) == 3
    (run,) = runs("experiment")
    assert run.info.status == "FAILED"
    assert "| full | In&Out | 2" in report(ReportConfig(run=run.info.run_id))


@pytest.mark.parametrize(
    ("workers", "left"), [(1, ["02:15", "02:15", "02:26", "01:19"]), (2, ["01:07", "01:07", "01:13", "00:39"])]
)
def test_the_time_left_is_estimated_first_and_corrected_by_trained_cells(
    workers: int, left: list[str], tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:  # fmt: skip
    from inandout.stages.experiment import cells

    def found_or_trained(config: ClassifyConfig, data: CheckedData) -> Result:
        if config.seed == 0:
            return Result(found.info.run_id, {"ap": 0.5, "seconds": 7.0})
        with mlflow.start_run(nested=True) as trained:
            return Result(trained.info.run_id, {"ap": 0.5, "seconds": 90.0})

    connect()
    with mlflow.start_run() as found:
        pass
    monkeypatch.setattr(cells, "classify", found_or_trained)
    monkeypatch.setattr(cells, "cheapest_first", lambda plan: list(enumerate([0.0, 45.0, 45.0, 45.0])))
    monkeypatch.setattr(cells, "run_all", lambda work, items, _: run_all(work, items, ParallelConfig()))
    with mlflow.start_run():
        cells_of_table = config(tiny, name="table2", n_augs="2", seeds="0,1,2,3").cells()
        measure_cells(cells_of_table, read_data(str(tiny)), ParallelConfig(workers=workers))
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"[0/4] about {left[0]} left"
    printed = [line.partition("AP 0.500")[2] for line in others]
    assert printed == [*(f", about {time} left" for time in left[1:]), ""]


def test_a_cell_takes_the_time_of_all_that_it_needs_and_a_finished_one_none(tiny: Path, project: Path) -> None:
    connect()
    few = config(tiny, name="comparison", n_augs="2", seeds="0")
    planned = plan_experiment(few)
    names = [(cell.config.scenario.shot, cell.source) for cell in planned.cells]
    seconds = {names[number]: value for number, value in cheapest_first(planned)}
    assert all(value > 0 for value in seconds.values())
    order = list(seconds)
    assert order.index(("zero", "MemSeg")) < order.index(("zero", "DDPM")), "DDPM fine-tunes and draws"
    first, second = sorted(order.index(("zero", source)) for source in ("DDPM", "In&Out"))
    assert seconds[order[first]] > seconds[order[second]], "the adapter of both counts for the first"
    classify(planned.cells[0].config, planned.data)
    assert cheapest_first(planned)[0] == (0, 0)


def test_the_conclusion_counts_significant_differences_and_asks_for_more_seeds() -> None:
    none, better = (Comparison("a", 1, 1, {"AP": Difference(0.1, low, 0.3)}, {}) for low in (-0.1, 0.05))
    assert conclusion([none, better], 4) == "1 of 2 differences are significant."
    assert conclusion([none], 1).startswith("No difference is significant; one seed")
    assert conclusion([], 1) == ""


@pytest.mark.parametrize("name", ["figure2", "figure4", "figure5"])
def test_a_figure_of_images_trains_no_classifier(name: str, tiny: Path, project: Path) -> None:
    assert "training steps" not in plan(config(tiny, name=name))
    assert "figure.png: " in experiment(config(tiny, name=name))
    assert runs("classify") == []
    (run,) = runs("experiment")
    drawn = artifact_folder(run.info.run_id, "figure.png")
    assert drawn.stat().st_size > 1000
    with pytest.raises(InputError, match=f"{name} tiles shows images .*; open {drawn}"):
        report(ReportConfig(name=name, profile="tiles"))


def test_the_feature_space_shows_both_pools(tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("inandout.stages.analysis.distance", "inandout.evaluation.distances"):
        monkeypatch.setattr(f"{module}.FEWEST", 4)
    text = experiment(config(tiny, name="figure1", n_augs="20"))
    assert "memseg n=010" in text
    assert "ddpm full" in text
    assert len(runs("classify")) == 1


def test_a_dry_run_counts_the_cost_without_training(tiny: Path, project: Path) -> None:
    table = config(tiny, name="table6", epochs=3, n_augs="4", seeds="0", gpu_tflops=10.0)
    text = plan(table)
    assert "2 cells, 0 finished and reused; 1 adapters and 2 pools are missing" in text
    positives = 6 + 4  # 2 of 8 are in the validation part
    assert numbers(text) == {
        "classifier, training steps": 2 * 3 * -(-2 * positives // 8),
        "fine-tuning, images": 10 * 6 * 2,  # 10 repeats, instance and prior images
        "prior preservation, images": 3,
        "diffusion, images": 4 + len(STRIP),
    }
    assert "hours on a GPU of 10 TFLOP/s" in text
    assert "not measured" not in text
    assert runs("classify") == runs("finetune") == []
    experiment(table)
    assert "2 cells, 2 finished and reused" in plan(table)
    larger = plan(config(tiny, name="table6", epochs=3, n_augs="4,7", seeds="0"))
    assert "0 adapters and 2 pools are missing" in larger
    assert numbers(larger)["diffusion, images"] == 3 + len(STRIP), "4 of 7 exist"
    assert numbers(plan(config(tiny, name="table2", n_augs="4", seeds="0"))) == {
        "classifier, training steps": 1, "fine-tuning, images": 10 * 16 * 2, "diffusion, images": 2 + len(STRIP),
    }, "prior images of a seed are shared by all shots"  # fmt: skip


def test_a_frozen_backbone_costs_a_pass_over_all_images(tiny: Path, project: Path) -> None:
    asked = config(tiny, name="table5", n_augs="4", seeds="0", backbone="mobilenet_v2", freeze="all")
    (work,) = [work for name, work in numbers(plan(asked)).items() if name.startswith("classifier")]
    images = 28 + 14  # to train and validate, and to test
    assert work == images + (images + 4), "none, and with 4 synthetic positives"


EXPERIMENTS = [
    {"name": "table6", "n_augs": "2,4"},
    {"name": "table4", "n_augs": "4", "negatives": "generated"},
    {"name": "comparison", "n_augs": "2", "negatives": "roundtrip"},
    {"name": "figure2", "n_augs": "4"},
    {"name": "figure4"},
    {"name": "figure5", "n_augs": "3", "negatives": "generated"},
]


@pytest.mark.parametrize("options", EXPERIMENTS, ids=[str(options["name"]) for options in EXPERIMENTS])
def test_a_dry_run_counts_exactly_the_work_of_the_execution(
    options: dict[str, str], tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GRIDS, "comparison", Grid(("zero",), ("inout", "inpaint")))
    experiment_config = config(tiny, seeds="0", **options)
    if options["name"] == "table6":
        experiment(config(tiny, name="table6", n_augs="2", seeds="0"))  # a part of the work is finished
    connect()
    found = {run.info.run_id for run in runs()}
    text, planned = plan(experiment_config), plan_experiment(experiment_config).missing()
    assert {run.info.run_id for run in runs()} == found, "a dry run opens no run"
    steps = count_steps(monkeypatch)
    experiment(experiment_config)
    added = [run for run in runs() if run.info.run_id not in found and run.data.tags[STAGE] != "experiment"]
    assert sorted((run.data.tags[STAGE], run.data.tags[FINGERPRINT]) for run in added) == sorted(
        (task.stage, task.identity) for task in planned
    )

    def total(stage: str, *metrics: str) -> float:
        return sum(run.data.metrics.get(name, 0) for run in added if run.data.tags[STAGE] == stage for name in metrics)

    strips = len(STRIP) * sum("ddpm_drawn" in run.data.metrics for run in added if run.data.tags[STAGE] == "augment")
    done = {
        "classifier, training steps": sum(steps),
        "fine-tuning, images": total("finetune", "instance_seen", "prior_seen"),
        "prior preservation, images": total("finetune", "prior_drawn"),
        "diffusion, images": total("augment", "ddpm_drawn", "inpaint_drawn") + strips,
        "good parts, images": total("negatives", "ddpm_drawn"),
    }
    assert numbers(text) == {name: number for name, number in done.items() if number}
    assert plan_experiment(experiment_config).missing() == []


def count_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that collects the number of steps of every epoch of a classifier."""
    steps: list[int] = []
    epoch = FrequencySampler.epoch

    def counted(sampler: FrequencySampler) -> object:
        order = epoch(sampler)
        steps.append(-(-len(order) // 8))
        return order

    monkeypatch.setattr(FrequencySampler, "epoch", counted)
    return steps


def numbers(text: str) -> dict[str, int]:
    """Parse the plan: kind of missing work to its number of steps or images."""
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in text.splitlines() if line.startswith("|")]
    return {name: int(number) for name, number in rows[2:]}


def test_synthetic_negatives_add_steps_and_generated_ones_an_adapter_of_good_parts(tiny: Path, project: Path) -> None:
    options = {"name": "table6", "n_augs": "4", "seeds": "0", "batch_size": 4}
    plain = {
        "classifier, training steps": 5 + 5, "fine-tuning, images": 10 * 6 * 2, "prior preservation, images": 3,
        "diffusion, images": 4 + len(STRIP),
    }  # fmt: skip
    assert numbers(plan(config(tiny, **options))) == plain
    roundtrip = plain | {"classifier, training steps": 5 + 6}
    assert numbers(plan(config(tiny, **options, negatives="roundtrip"))) == roundtrip
    text = plan(config(tiny, **options, negatives="generated"))
    assert "2 adapters and 3 pools are missing" in text
    tuned = 10 * (6 + 16) * 2
    assert numbers(text) == roundtrip | {"fine-tuning, images": tuned, "good parts, images": 4}


def test_existing_inpainted_images_are_not_counted_as_missing(tiny: Path, project: Path) -> None:
    cells = [cell.config for cell in config(tiny, n_augs="2,5", seeds="0").cells() if cell.source == "inpainting"]
    few, many = (cell for cell in cells if cell.scenario.shot == "zero")
    data, pools = read_data(str(tiny)), [few.diffusion_pool(2), many.diffusion_pool(5)]
    assert missing_images(pools, data) == {pools[1]: 5}
    make_pool(pools[0], data)
    assert missing_images(pools, data) == {pools[1]: 3}


def test_the_cost_of_a_base_that_is_not_downloaded_is_counted_without_download(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty_cache(*_: object, local_files_only: bool, **__: object) -> str:
        assert local_files_only
        raise LocalEntryNotFoundError("nothing is cached")

    monkeypatch.setattr("inandout.diffusion.base.hub.snapshot_download", empty_cache)
    text = plan(config(tiny, name="table6", n_augs="4", seeds="0", base=f"somebody/surfaces@{'0' * 40}"))
    assert numbers(text)["prior preservation, images"] == 200
    assert "the base is not downloaded: its time is derived from counted operations, not measured" in text


def test_steps_are_timed_on_the_device_of_the_training(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inandout.stages.experiment import cost

    class Elsewhere(DefectNet):
        def to(self, *places: Any, **changes: Any) -> "Elsewhere":
            calls.extend(places)
            return self if places else super().to(**changes)

    calls: list[object] = []
    monkeypatch.setattr(cost, "build_classifier", lambda *_: Elsewhere())
    cuda = torch.device("cuda")
    monkeypatch.setattr(HardwareConfig, "open", lambda self: Hardware(cuda))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append("waited"))
    shared = config(tiny, name="table6").cells()[0].config
    timed = cost._classifier_step.__wrapped__  # not from the cache
    timed(shared.backbone.backbone, shared.fit, shared.geometry, shared.hardware)
    assert calls == [cuda, "waited", cuda, "waited", "waited", "waited"]


def test_a_dry_run_prints_configuration_and_cost(tiny: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["experiment", "--name", "table5", "--profile", "tiles", "--data", str(tiny), "--dry-run"]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--width", "32", "--height", "32", "--seeds", "0"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert json.JSONDecoder().raw_decode(printed)[0]["name"] == "table5"
    assert "2 cells, 0 finished" in printed


def test_every_name_has_its_cells_and_a_profile_requires_its_options(tiny: Path) -> None:
    assert {name: len(config(tiny, name=name).cells()) for name in GRIDS} == {
        "table1": 8, "table2": 4, "table3": 8, "table4": 4, "table5": 6, "table6": 8,
        "figure1": 1, "figure2": 1, "figure4": 1, "figure5": 1, "figure6": 12, "figure7": 12, "comparison": 64,
        "anchors": 90, "diag": 8,
    }  # fmt: skip
    with pytest.raises(InputError, match="profile = tiles: requires option data"):
        ExperimentConfig.from_flat(profile="tiles").cells()
    with pytest.raises(InputError, match="profile = paper: requires option base"):
        ExperimentConfig.from_flat(profile="paper").cells()
    (first, *_) = ExperimentConfig.from_flat(profile="paper", name="table5", base="a/b").cells()
    fit = first.config.fit
    assert (first.config.geometry.width, fit.lr, fit.epochs, fit.batch_size) == (200, 0.01, 50, 5)


def test_distances_of_a_profile_that_trains_the_backbone_are_refused() -> None:
    with pytest.raises(InputError, match="distances = True: profile = embedded trains the backbone; give freeze=all"):
        ExperimentConfig.from_flat(profile="embedded", distances=True).cells()
    cells = ExperimentConfig.from_flat(profile="embedded", distances=True, freeze="all").cells()
    assert {cell.config.backbone.distances for cell in cells} == {True}

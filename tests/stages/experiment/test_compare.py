"""Rows of a comparison besides the paper's sources: controls, pools of others, two stages, folds, power."""

from functools import cache
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from inandout.data.config import Size
from inandout.data.images import write_image
from inandout.data.manifest import read_manifest
from inandout.data.prepare import CheckedData, read_data
from inandout.errors import InputError
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify
from inandout.stages.experiment import cost
from inandout.stages.experiment.cells import list_remarks
from inandout.stages.experiment.compare import compare, plan
from inandout.stages.experiment.config import CompareConfig, ExperimentConfig, ReportConfig
from inandout.stages.experiment.cost import Timed, cheapest_first
from inandout.stages.experiment.duration import BACKWARD
from inandout.stages.experiment.grid import SOURCES, build_cells
from inandout.stages.experiment.missing import training_steps
from inandout.stages.experiment.paired_tests import _questions, pairs_of
from inandout.stages.experiment.plan import equal_steps, plan_cells
from inandout.stages.experiment.power import measured_power
from inandout.stages.experiment.report import report
from inandout.stages.experiment.with_distances import distances_table
from inandout.stages.pools.text2img import STRIP
from inandout.tracking.runs import STAGE, artifact_folder
from inandout.tracking.store import connect
from tests.conftest import SIDE, draw, shrink_presets

pytestmark = pytest.mark.slow

SMALL = {"n_aug": 4, "width": SIDE, "height": SIDE, "epochs": 2, "batch_size": 8, "backbone": "resnet18"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the export of the model and most bootstrap rounds."""
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda model, pixels: None)
    monkeypatch.setattr("inandout.evaluation.paired_test.paired_difference.__defaults__", (0, 20))


def config(tiny: Path, **changes: object) -> CompareConfig:
    frozen = {"data": str(tiny), "freeze": "all", "shots": "full"}
    return CompareConfig.from_flat(**frozen | SMALL | changes)


def runs(stage: str) -> list[mlflow.entities.Run]:
    found = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run for run in found if run.data.tags.get(STAGE) == stage]


def results(stage: str = "main") -> str:
    (run,) = runs(stage)
    return artifact_folder(run.info.run_id, "results.md").read_text(encoding="utf-8")


def other_pool(folder: Path, count: int = 5) -> Path:
    """Write images of another generator, without a manifest."""
    folder.mkdir()
    for number in range(count):
        write_image(folder / f"{number}.png", draw(500 + number, True)[0])
    return folder


def test_the_controls_and_a_pool_of_another_generator_are_rows(tiny: Path, project: Path, tmp_path: Path) -> None:
    folder = other_pool(tmp_path / "theirs")
    rows = compare(config(tiny, sources="none,none-steps,nearest", pool=f"theirs={folder}"))
    assert [(row.source, row.n_aug) for row in rows] == [
        ("none", 0), ("none, equal steps", 4), ("nearest neighbour", 0), ("theirs", 4),
    ]  # fmt: skip
    text = results()
    assert "theirs: 5 of 5 images have no record of their sources" in text
    (run,) = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.`inandout.stage` = 'main'", output_format="list"
    )
    assert "theirs: 5 of 5 images have no record of their sources" in report(ReportConfig(run=run.info.run_id))
    assert all(cell.nearest().device == "cpu" for cell in config(tiny, sources="nearest", device="cpu").cells())
    assert "theirs against none, equal steps: AP" in text
    assert "theirs against nearest neighbour: AP" in text
    by_source = {row.source: mlflow.get_run(row.run_id).data for row in rows}
    assert by_source["theirs"].params["n_train_other_positives"] == "4"
    assert int(by_source["none, equal steps"].params["epochs"]) > 2
    assert by_source["nearest neighbour"].tags[STAGE] == "nearest"


def seconds_each(text: str) -> dict[str, float]:
    """Parse the plan: kind of missing work to the seconds of a step or an image."""
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in text.splitlines() if line.startswith("|")]
    return {name: float(seconds) for name, _, seconds in rows[2:]}


def test_a_dry_run_prices_each_pool_with_its_own_size_steps_and_passes(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[int] = []

    def unet(base: object, size: Size, hardware: object) -> tuple[int, Timed]:
        timed.append(size.width)
        return 8, Timed(size.width * size.height / SIDE**2, 0)

    monkeypatch.setattr(cost, "_unet", cache(unet))
    mixed = seconds_each(plan(config(tiny, sources="none,memseg,inout-inpaint")))
    assert mixed["diffusion, images"] == 12 * 7, "a drawn mask needs the image twice, and one pass"
    priced = seconds_each(plan(config(tiny, sources="diag,ddpm,inpaint", fit="stretch")))
    seconds = [4 * 30 * 2 * (1024 / SIDE) ** 2, (4 + len(STRIP)) * 12 * 3, 4 * 12 * 7]
    assert priced["diffusion, images"] == pytest.approx(sum(seconds) / (4 + 4 + len(STRIP) + 4), abs=0.001)
    assert priced["fine-tuning, images"] == BACKWARD
    assert sorted(timed) == [SIDE, 1024], "each size is timed once"


def test_equal_steps_are_those_of_the_classifier_with_synthetic_positives(tiny: Path) -> None:
    asked = config(tiny, sources="none-steps,memseg", shots="few,full", n_aug=40, epochs=3, seeds="0,1")
    data = read_data(str(tiny))
    cells = equal_steps(asked.cells(), data)
    memseg = {(c.config.scenario.shot, c.config.seed): c.config for c in cells if c.source == "MemSeg"}
    control = {(c.config.scenario.shot, c.config.seed): c.config for c in cells if c.kind == "none-steps"}
    assert memseg.keys() == control.keys()
    for key, one in control.items():
        assert one.mix.n_aug == 0
        per_epoch = training_steps(one, data) // one.fit.epochs
        assert 0 <= training_steps(one, data) - training_steps(memseg[key], data) < per_epoch


def test_an_image_of_another_generator_that_copies_a_test_part_is_refused(
    tiny: Path, project: Path, tmp_path: Path
) -> None:
    folder = other_pool(tmp_path / "theirs")
    held_out = next(sample for sample in read_manifest(tiny) if sample.split == "test" and sample.label)
    image = draw(int(held_out.image.stem), True)[0]
    write_image(folder / "0.png", np.minimum(image + 3, 255).astype(np.uint8))
    with pytest.raises(InputError, match=r"0\.png: is a near-duplicate of .* held out"):
        compare(config(tiny, sources="none", pool=f"theirs={folder}"))


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ("theirs", "does not have the form NAME=FOLDER"),
        ("memseg=x", "the name 'memseg' is in use"),
        ("a=x,a=y", "the name 'a' is in use"),
    ],
)
def test_a_pool_needs_a_name_of_its_own(pool: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompareConfig.from_flat(pool=pool)


def test_two_stages_continue_the_whole_first_classifier(
    tiny: Path, tiny_base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_presets(monkeypatch)
    asked = config(tiny, sources="two-stage", base=str(tiny_base), shots="zero")
    (row,) = compare(asked)
    first, second = sorted(runs("classify"), key=lambda run: int(run.info.start_time))
    assert second.data.params["start"] == first.info.run_id
    assert (first.data.params["ddpm_ratio"], second.data.params["ddpm_ratio"]) == ("0.0", "1.0")
    assert [run.data.params["epochs"] for run in (first, second)] == ["1", "1"], "together as many as asked for"
    assert row.run_id == second.info.run_id
    assert "1 cells, 1 finished" in plan(asked)
    kept = read_weights(first.info.run_id)
    monkeypatch.setattr("inandout.stages.classify.train.fit", lambda *_, **__: [])
    asked_again = ClassifyConfig.from_flat(data=str(tiny), start=first.info.run_id, freeze="all", **SMALL)
    assert kept == read_weights(classify(asked_again).run_id), "untrained, the network is that of the first stage"


def read_weights(run_id: str) -> dict[str, list[float]]:
    from safetensors.torch import load_file

    tensors = load_file(artifact_folder(run_id, "classifier.safetensors"))
    return {name: tensor.flatten().tolist() for name, tensor in tensors.items()}


def test_a_start_of_another_fold_or_backbone_is_refused(tiny: Path, project: Path) -> None:
    def one(**changes: object) -> ClassifyConfig:
        return ClassifyConfig.from_flat(**{"data": str(tiny), "freeze": "all"} | SMALL | {"n_aug": 0} | changes)

    start = classify(one(fold="1/2")).run_id
    with pytest.raises(InputError, match="was trained with another test part"):
        classify(one(fold="2/2", start=start))
    with pytest.raises(InputError, match="has backbone=resnet18"):
        classify(one(fold="1/2", start=start, backbone="mobilenet_v2"))


def test_folds_test_every_part_once_and_are_averaged(tiny: Path, project: Path) -> None:
    rows = compare(config(tiny, sources="none,nearest", folds=2))
    assert [(row.source, row.fold) for row in rows] == [
        ("none", "1/2"), ("none", "2/2"), ("nearest neighbour", "1/2"), ("nearest neighbour", "2/2"),
    ]  # fmt: skip
    pairs = pairs_of(rows, "none", "nearest neighbour")
    assert pairs.runs == [(0, "1/2"), (0, "2/2")]
    assert sum(len(ours.labels) for ours, _ in pairs.scores) == len(read_manifest(tiny))
    groups = [set(ours.groups) for ours, _ in pairs.scores]
    assert not groups[0] & groups[1]
    mean = np.mean([row.metrics["ap"] for row in rows if row.source == "none"])
    assert any(line.startswith("| full | none") and f"{mean:.3f}" in line for line in results().splitlines())
    assert "nearest neighbour against none: AP" in results()
    assert "1 seed, so without training variance, 2 folds" in results()
    (run,) = runs("main")
    page = report(ReportConfig(run=run.info.run_id)).split("## Together with distances to good parts")[1]
    (line,) = [line for line in page.splitlines() if line.startswith("| full | none")]
    shot, source, n_aug, alone, together, gain, over_distances, _ = [cell.strip() for cell in line.split("|")[1:]]
    assert (shot, source, n_aug, alone) == ("full", "none", "0", f"{mean:.3f}")
    distances = np.mean([row.metrics["ap"] for row in rows if row.source == "nearest neighbour"])
    assert float(gain.split()[0]) == pytest.approx(float(together) - mean, abs=2e-3)
    assert float(over_distances.split()[0]) == pytest.approx(float(together) - distances, abs=2e-3)
    assert distances_table([row for row in rows if row.source == "none"]) == ""


def test_distances_are_not_added_twice(tiny: Path, project: Path) -> None:
    rows = compare(config(tiny, sources="none,nearest", distances=True))
    assert {row.source for row in rows} == {"none", "nearest neighbour"}
    (run,) = runs("main")
    page = report(ReportConfig(run=run.info.run_id))
    assert "distances=True" in page
    assert "Together with distances to good parts" not in page


def test_folds_exclude_a_single_fold() -> None:
    with pytest.raises(ValueError, match="folds = 2 tests on every fold"):
        CompareConfig.from_flat(folds=2, fold="1/3")
    with pytest.raises(ValueError, match="one fold has no training part"):
        CompareConfig.from_flat(folds=1)


def test_a_dry_run_states_the_power(tiny: Path, project: Path) -> None:
    connect()
    text = plan(config(tiny, sources="none,memseg", seeds="0,1"))
    assert "power: with 6 defective images of 6 parts, 8 good images and 2 seeds, a difference of AP of " in text
    folds = plan(config(tiny, sources="none,memseg", seeds="0,1", folds=2, expected_ap=0.9))
    assert "power: with 14 defective images of 14 parts, 28 good images" in folds
    assert "AP 0.9, correlation" in folds


def test_each_source_of_defects_is_compared_with_the_controls() -> None:
    steps, nearest = SOURCES["none-steps"].title, SOURCES["nearest"].title
    assert _questions(["none", steps, nearest, "MemSeg", "In&Out"]) == [
        ("In&Out", "none"), ("In&Out", steps), ("In&Out", nearest), ("In&Out", "MemSeg"),
        ("MemSeg", steps), ("MemSeg", nearest),
    ]  # fmt: skip
    assert _questions(["none", "MemSeg"]) == [("MemSeg", "none")]
    assert _questions(["none", nearest]) == [(nearest, "none")]


def test_generated_pools_need_no_remark() -> None:
    assert list_remarks(list(build_cells(["full"], ["none", "memseg"], [4], [0], ClassifyConfig()))) == []


def test_seeds_that_repeat_the_training_share_split_and_pools(tiny: Path, project: Path) -> None:
    asked = config(tiny, sources="nearest,none,memseg", seeds="2,3", repeat="training", epochs=1, curve="1")
    assert "8 cells, 0 finished and reused; 0 adapters and 1 pools are missing" in plan(asked)
    rows = compare(asked)
    assert [(row.source, row.n_shot, row.seed) for row in rows] == [
        (source, n_shot, seed)
        for source, n_shot in (("nearest neighbour", 0), ("none", 0), ("MemSeg", 0), ("none", 1))
        for seed in (2, 3)
    ]  # fmt: skip
    assert len(runs("augment")) == len(runs("nearest")) == 1
    for first, second in zip(rows[2::2], rows[3::2], strict=True):
        assert mlflow.get_run(second.run_id).data.params["seed"] == "2"
        weights, others = (load_file(artifact_folder(row.run_id, "classifier.safetensors")) for row in (first, second))
        assert not torch.equal(weights["fc.weight"], others["fc.weight"])
        manifests = [artifact_folder(row.run_id, "manifest.csv").read_text() for row in (first, second)]
        assert manifests[0] == manifests[1]
    assert "All seeds use the split, the real defects of few shot and the pools of seed 2." in results()
    assert "| nearest neighbour | 0     | 1     |" in results(), "it is computed once"
    assert "MemSeg against none: AP" in results() and "2 seeds" in results()
    assert "8 cells, 8 finished and reused" in plan(asked)
    spreads = [np.std([row.metrics["ap"] for row in rows[start : start + 2]], ddof=1) for start in (2, 4)]
    assert np.mean(spreads) > 0.002
    assert f"over seeds {np.mean(spreads):.3f}" in measured_power(rows[:6]), "distances have no spread of training"


def test_the_first_seed_makes_the_pool_and_the_cheapest_source_is_first(tiny: Path, project: Path) -> None:
    connect()
    asked = config(tiny, sources="inpaint,memseg", seeds="2,3", repeat="training")
    cells = asked.cells()
    order = cheapest_first(plan_cells(cells, read_data(str(tiny))))
    assert [(cells[number].source, cells[number].config.own_seed()) for number, _ in order] == [
        (source, seed) for source in ("MemSeg", "inpainting") for seed in (2, 3)
    ]  # fmt: skip
    seconds = [value for _, value in order]
    assert seconds[2] > 2 * seconds[3], "the first seed makes the pool"


@pytest.mark.parametrize("repeat", ["all", "training"])
def test_the_first_seed_is_the_same_classifier_whatever_is_repeated(repeat: str) -> None:
    alone = CompareConfig.from_flat(seeds="2", sources="memseg,two-stage").cells()
    several = CompareConfig.from_flat(seeds="2,0", sources="memseg,two-stage", repeat=repeat).cells()
    assert alone == [cell for cell in several if cell.config.own_seed() == 2]
    assert {cell.config.seed for cell in several} == ({2, 0} if repeat == "all" else {2})


def test_the_page_of_a_comparison_has_all_sections(tiny: Path, project: Path) -> None:
    asked = config(tiny, sources="none,none-steps,memseg", curve="1,3")
    rows = compare(asked)
    assert [(row.n_shot, row.seed) for row in rows if row.n_shot] == [(1, 0), (3, 0)]
    assert "worth in real defects" in results()
    setup = "Data tiny.csv, images of 32x32 (crop); resnet18 from weights none (none), freeze=all, head=image"
    assert setup in results()
    assert "| few " not in results().partition("worth")[0], "points of the curve are no rows of the table"
    (run,) = runs("main")
    text = report(ReportConfig(run=run.info.run_id))
    titles = ["Results", "What it means for a plant", "Differences", "Power", "Worth in real defects", "Controls"]
    for title in [*titles, "How it was made"]:
        assert f"## {title}\n" in text
    assert "Best and worst synthetic images" not in text
    assert "full shot, n_aug 4, MemSeg against none, equal steps: AP" in text
    assert "With 6 defective images of 6 parts, 8 good images and 1 seed, a difference of AP of" in text
    assert "the interval of one seed leaves out the variance of training. Measured:" in text
    assert setup in text
    assert "paper's AP" not in text
    (reported,) = runs("report")
    page = artifact_folder(reported.info.run_id, "results.html").read_text(encoding="utf-8")
    assert "full shot, MemSeg, seed 0: best and worst of 4" in page
    assert f"--data {tiny} " in page
    assert "--curve 1,3" in page
    assert f"report --run {run.info.run_id}" in page
    assert page.count("data:image/png") == 2 + 1 + 1, "two forests, the curve, and a sheet"
    assert "full shot, MemSeg, seed 0: best and worst of 4" in page_of(tiny, "none-steps,memseg")
    assert "Not shown: this needs the files of synthetic images" in page_of(tiny, "none")


def page_of(data: Path, sources: str) -> str:
    """Return the HTML page of a comparison whose cells are finished."""
    compare(config(data, sources=sources))
    report(ReportConfig(run=runs("main")[0].info.run_id))
    return artifact_folder(runs("report")[0].info.run_id, "results.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("profile", ["magnetic_tile", "solar_cells", "kolektor_sdd"])
def test_real_data_is_tested_in_five_folds_with_windows(profile: str) -> None:
    options = {"data": "parts.csv", "weights": "none", "seeds": "0", "curve": ""}
    cells = ExperimentConfig.from_flat(name="anchors", profile=profile, **options).cells()
    assert {cell.config.data.fold for cell in cells} == {f"{i}/5" for i in range(1, 6)}
    assert {cell.config.mix.window for cell in cells} == {64}
    assert {cell.config.backbone.tile for cell in cells} == ({64} if profile == "kolektor_sdd" else {0})


def test_a_report_needs_a_row_besides_the_points_of_the_curve(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails_in_the_table(config: ClassifyConfig, data: CheckedData) -> Result:
        if config.scenario.shot == "full":
            raise InputError("a full disk")
        return classify(config, data)

    monkeypatch.setattr("inandout.stages.experiment.cells.classify", fails_in_the_table)
    with pytest.raises(InputError, match="1 of 2 cells failed"):
        compare(config(tiny, sources="none", curve="1"))
    (run,) = runs("main")
    with pytest.raises(InputError, match=f"run = {run.info.run_id}: only points of the learning curve are finished"):
        report(ReportConfig(run=run.info.run_id))
    assert runs("report") == []


def test_the_experiment_anchors_has_every_control(tiny: Path) -> None:
    data = {"data": str(tiny), "weights": "none", "n_shot": 3, "each_kind": "true"}
    options = {"name": "anchors", "profile": "magnetic_tile"} | data
    small = {"width": SIDE, "height": SIDE, "epochs": 2, "n_augs": "4", "seeds": "0", "curve": "1", "folds": 0}
    cells = ExperimentConfig.from_flat(**options | small).cells()
    assert [cell.source for cell in cells if cell.config.scenario.shot == "zero"] == [
        "nearest neighbour", "MemSeg", "DDPM", "In&Out", "inpainting", "In&Out, inpainting", "MemSeg, then DDPM",
    ]  # fmt: skip
    assert {cell.config.backbone.freeze for cell in cells} == {"all"}
    assert {(cell.on_curve, cell.config.scenario.each_kind) for cell in cells} == {(False, True), (True, False)}
    compared = CompareConfig.from_flat(each_kind=True, shots="few").cells()
    assert {cell.config.scenario.describe() for cell in compared} == {"few, 5 of each kind"}
    with pytest.raises(InputError, match="profile = solar_cells: requires option weights"):
        ExperimentConfig.from_flat(profile="solar_cells", name="anchors", data="x").cells()

"""Entry point `experiment`: reproduce a table or figure of the paper, or our comparison, with one resumable command."""

import mlflow

from inandout.data.geometry import fit_image
from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample, fingerprint
from inandout.data.prepare import read_data
from inandout.fingerprints import Identity
from inandout.parallel import ParallelConfig
from inandout.reporting.figures import contact_sheet
from inandout.stages.analysis.config import DistanceConfig
from inandout.stages.analysis.distance import distance
from inandout.stages.classify.synthetic import make_pool
from inandout.stages.experiment.cells import measure_cells, refuse_impossible_cells
from inandout.stages.experiment.config import GRIDS, ExperimentConfig
from inandout.stages.experiment.cost import estimate
from inandout.stages.experiment.plan import Plan, equal_steps, plan_cells, positive_pools
from inandout.stages.experiment.power import power
from inandout.stages.experiment.report import EXPERIMENT_TAG, FIGURE, log_report
from inandout.tracking.logging import describe_location, log_dataset
from inandout.tracking.runs import artifact_folder, open_run
from inandout.tracking.store import connect

N_SHOWN = 16
"""Maximum number of images of each kind in a figure."""


def experiment(config: ExperimentConfig) -> str:
    """Train the missing cells of a table or figure and report it; the same command resumes a stopped experiment."""
    connect()
    planned = plan_experiment(config)
    cells, data, first = planned.cells, planned.data, planned.cells[0].config
    refuse_impossible_cells(cells, data)
    samples = data.take_shot(first.data, first.scenario, first.seed)
    key = Identity(
        "experiment", __name__, config, {"data": fingerprint(samples)}, ignored=["data", "expected_ap"]
    ).fingerprint
    with open_run("experiment", config.flat(), key, f"experiment {config.name} {config.profile}") as run:
        mlflow.set_tag(EXPERIMENT_TAG, f"{config.name} {config.profile}")
        log_dataset(first.data.data, fingerprint(samples), samples)
        shows = GRIDS[config.name].shows
        if shows == "metrics":
            text = log_report(measure_cells(cells, data, config.engine), run.info.run_id)
        else:
            text = _feature_space(planned) if shows == "features" else _images(planned)
    print(f"\n{text}\n\n{describe_location(run)}")
    return text


def plan(config: ExperimentConfig) -> str:
    """Print the estimated cost and power of `experiment` without training or drawing."""
    connect()
    planned = plan_experiment(config)
    text = estimate(planned, config.gpu_tflops)
    if GRIDS[config.name].shows == "metrics":
        text += f"\n\n{power(planned.cells, planned.data, config.expected_ap)}"
    print(text)
    return text


def plan_experiment(config: ExperimentConfig) -> Plan:
    """Return the plan of an experiment; a figure of images needs the pools of its only cell, and no classifier."""
    cells = config.cells()
    data = read_data(cells[0].config.data.data)
    if GRIDS[config.name].shows != "images":
        return plan_cells(equal_steps(cells, data), data)
    return Plan(data, cells, positive_pools(cells[0].config, data))


def _images(planned: Plan) -> str:
    """Log `FIGURE` with images; return its caption."""
    (cell,) = planned.cells
    kinds, config = _images_by_kind(planned), cell.config
    rows = [(kind, sample) for kind, samples in kinds.items() for sample in samples[:N_SHOWN]]
    images: list[ImageArray] = [fit_image(read_image(sample.image), config.geometry) for _, sample in rows]
    captions = [f"{kind} {sample.prompt or sample.defect}".strip() for kind, sample in rows]
    mlflow.log_image(contact_sheet(images, captions), artifact_file=FIGURE)
    counts = ", ".join(f"{min(len(samples), N_SHOWN)} of {len(samples)} {kind}" for kind, samples in kinds.items())
    return f"{FIGURE}: {counts}"


def _images_by_kind(planned: Plan) -> dict[str, list[Sample]]:
    """Return images by kind: those of the planned pools, or real ones if there is no pool."""
    (cell,) = planned.cells
    pools = [make_pool(task.config, planned.data) for task in positive_pools(cell.config, planned.data)]
    if pools:
        return {cell.source: [sample for pool in pools for sample in pool.samples]}
    samples = planned.data.take_shot(cell.config.data, cell.config.scenario, cell.config.seed)
    training = [sample for sample in samples if sample.split == "train"]
    return {"good": [sample for sample in training if not sample.label], "defect": [s for s in training if s.label]}


def _feature_space(planned: Plan) -> str:
    """Log `FIGURE` with features of real and synthetic images in two principal components; return its caption."""
    (row,) = measure_cells(planned.cells, planned.data, ParallelConfig())
    needed = positive_pools(planned.cells[0].config, planned.data)
    pools = [make_pool(task.config, planned.data).run_id for task in needed]
    distances = distance(DistanceConfig(model=row.run_id, pools=",".join(pools)))
    mlflow.log_image(read_image(artifact_folder(distances.run_id, "features.png")), artifact_file=FIGURE)
    return f"{distances.table}\n\nThe classifier was trained on these synthetic images as defects."

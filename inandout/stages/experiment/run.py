"""Entry point `experiment`: the paper's tables and figures, and ours, each by one command that can be killed."""

import mlflow

from inandout.data.geometry import fit_image
from inandout.data.images import ImageArray, read_image
from inandout.data.manifest import Sample, fingerprint
from inandout.data.prepare import prepare_shot
from inandout.fingerprints import Identity
from inandout.parallel import ParallelConfig
from inandout.reporting.figures import contact_sheet
from inandout.stages.analysis.distance import DistanceConfig, distance
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.synthetic import make_diffusion_pool, make_memseg_pool
from inandout.stages.experiment.cells import Cell, measure_cells, refuse_impossible_cells
from inandout.stages.experiment.config import GRIDS, ExperimentConfig
from inandout.stages.experiment.cost import estimate
from inandout.stages.experiment.report import EXPERIMENT_TAG, FIGURE, log_report
from inandout.tracking.logging import experiment_url, log_dataset
from inandout.tracking.runs import artifact_folder, open_run
from inandout.tracking.store import connect

SHOWN = 16
"""Images of a kind in a figure that shows images."""


def experiment(config: ExperimentConfig) -> str:
    """Train what is missing of a table or figure and report it; the same command goes on where it was stopped."""
    connect()
    cells = config.cells()
    refuse_impossible_cells(cells)
    first = cells[0].config
    samples = prepare_shot(first.data, first.scenario, first.seed)
    key = Identity("experiment", __name__, config, {"data": fingerprint(samples)}, ignored=["data"]).fingerprint
    with open_run("experiment", config.flat(), key, f"{config.name} {config.profile}") as run:
        mlflow.set_tag(EXPERIMENT_TAG, f"{config.name} {config.profile}")
        log_dataset(first.data.data, fingerprint(samples), samples)
        shows = GRIDS[config.name].shows
        if shows == "metrics":
            text = log_report(measure_cells(cells, config.engine))
        else:
            text = _feature_space(cells[0]) if shows == "features" else _images(config.name, first)
    print(f"\n{text}\n\n{experiment_url(run)}")
    return text


def plan(config: ExperimentConfig) -> str:
    """What `experiment` would cost, printed; nothing is trained or drawn."""
    connect()
    train = GRIDS[config.name].shows != "images"
    text = estimate([cell.config for cell in config.cells()], config.gpu_tflops, train)
    print(text)
    return text


def _images(name: str, config: ClassifyConfig) -> str:
    """`FIGURE` of a figure that shows images; gives its caption."""
    kinds = _shown(name, config)
    rows = [(kind, sample) for kind, samples in kinds.items() for sample in samples[:SHOWN]]
    images: list[ImageArray] = [fit_image(read_image(sample.image), config.geometry) for _, sample in rows]
    captions = [f"{kind} {sample.prompt or sample.defect}".strip() for kind, sample in rows]
    mlflow.log_image(contact_sheet(images, captions), artifact_file=FIGURE)
    counts = ", ".join(f"{min(len(samples), SHOWN)} of {len(samples)} {kind}" for kind, samples in kinds.items())
    return f"{FIGURE}: {counts}"


def _shown(name: str, config: ClassifyConfig) -> dict[str, list[Sample]]:
    """Kinds of images by name."""
    if name == "figure2":
        return {"MemSeg": make_memseg_pool(config, config.mix.n_aug).samples}
    if name == "figure5":
        return {"DDPM": make_diffusion_pool(config, config.mix.n_aug).samples}
    known = [s for s in prepare_shot(config.data, config.scenario, config.seed) if s.split == "train"]
    return {"good": [sample for sample in known if not sample.label], "defect": [s for s in known if s.label]}


def _feature_space(cell: Cell) -> str:
    """Real and synthetic images as the trained ResNet-50 sees them, in two principal components."""
    (row,) = measure_cells([cell], ParallelConfig())
    n_ddpm, n_memseg = cell.config.shares()
    pools = [make_memseg_pool(cell.config, n_memseg).run_id, make_diffusion_pool(cell.config, n_ddpm).run_id]
    found = distance(DistanceConfig(model=row.run_id, pools=",".join(pools)))
    mlflow.log_image(read_image(artifact_folder(found.run_id, "features.png")), artifact_file=FIGURE)
    return f"{found.table}\n\nThe ResNet-50 was trained with these synthetic images: it knows them for defects."

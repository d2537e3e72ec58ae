"""Descriptions of runs, which the MLflow UI shows above a run's parameters."""

from typing import NamedTuple

_TAG = "mlflow.note.content"


class Description(NamedTuple):
    """What a run is, and what to look at."""

    what: str
    look_at: str


_POOL = "`pool.png`, `gallery/index.html`, and the metrics `share_in_*`: how many images look like the product"

DESCRIPTIONS = {
    "main": Description("Comparison of classifiers with and without synthetic defects", "the table in `results.md`"),
    "experiment": Description("Table or figure of an experiment", "`results.html` or `figure.png`"),
    "report": Description("Report of the finished cells of an experiment", "`results.html`"),
    "classify": Description(
        "Classifier, trained on real and synthetic images",
        "`pr_curve.png`, `worst_mistakes.png`, and the metrics `ap` and `recall` of the test part",
    ),
    "nearest": Description(
        "Nearest-neighbour baseline, which never sees a defect",
        "`distance_maps.png`, `worst_mistakes.png`, and the metrics `ap` and `auroc` of the test part",
    ),
    "validate": Description("Classifier of a trial, evaluated on the validation part", "the metric `val_ap`"),
    "finetune": Description(
        "Adapter of a Stable Diffusion, trained by DreamBooth", "`instances.png`, `prior.png` and the curve of `loss`"
    ),
    "pretrain": Description("The embedded Stable Diffusion", "the contact sheets in `samples`, and the losses"),
    "augment": Description("Pool of synthetic positives", _POOL),
    "topup": Description("Reviewed pool with more images", _POOL),
    "negatives": Description("Pool of synthetic negatives", _POOL),
    "filter": Description("Pool without images that a classifier rejects", "`filter.md` and `filter.png`"),
    "review": Description("Review of images", "`summary.json`, and the metrics `review_*`"),
    "labels": Description("Labels by out-of-fold loss", "`labels.csv`, highest loss first"),
    "search": Description("Search of alpha and ddpm_ratio by validation", "`results.md` and the figures in `study`"),
    "trial": Description("One point of a search", "the metric `val_ap` of its child runs"),
    "probe": Description("Does a classifier detect defects or the generator?", "`probe.md`, `probe.png`, `scores.png`"),
    "distance": Description("Distances of pools to real defects", "`distance.md` and `features.png`"),
    "export": Description("Classifier as an ONNX file", "`latency.md`, and the metric `export_max_difference`"),
    "promote": Description("Classifier as a version of a registered model", "`model_card.md`"),
}  # fmt: skip
"""Value of the tag `inandout.stage` to description."""

_NOT_COMMANDS = {"validate", "trial", "topup", "negatives"}
"""Stages whose options are not those of a command."""

_COMMANDS = {"labels": "label-errors", "probe": "probe-shortcut"}
"""Stages that do not have the name of their command."""


def description_tag(stage: str, run_id: str) -> dict[str, str]:
    """Return the tag with the lines that describe a run; nothing for a stage that is not in `DESCRIPTIONS`."""
    if stage not in DESCRIPTIONS:
        return {}
    what, look_at = DESCRIPTIONS[stage]
    lines = [f"{what}.", f"Look at {look_at}."]
    if stage not in _NOT_COMMANDS:
        lines.append(f"Run it again with `python -m inandout {_COMMANDS.get(stage, stage)} --config run:{run_id}`.")
    return {_TAG: "\n\n".join(lines)}

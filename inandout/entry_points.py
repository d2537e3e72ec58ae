"""The entry points of the command line and of MLproject.

Configurations lie apart from the code that runs. `--help` and `--dry-run` import the configuration only; the libraries
that a stage needs take seconds to import.
"""

from importlib import import_module
from typing import Any, NamedTuple

from inandout.options import StageConfig


class Stage(NamedTuple):
    """An entry point. Locations have the form `module:name`, with a module of `inandout.stages`."""

    summary: str
    """One line for `--help`."""
    config_location: str
    run_location: str
    plan_location: str = ""
    """Location of the function that prints the estimated cost; "" = none."""
    duration_location: str = ""
    """Location of the function that returns a sentence about the duration; "" = none."""

    @property
    def config(self) -> type[StageConfig]:
        """The configuration."""
        config: type[StageConfig] = _load(self.config_location)
        return config

    def run(self, config: StageConfig) -> None:
        """Run the stage."""
        _load(self.run_location)(config)

    def plan(self, config: StageConfig) -> None:
        """Print the estimated cost of `run`, if it can be estimated."""
        if self.plan_location:
            _load(self.plan_location)(config)

    def duration(self, config: StageConfig) -> str:
        """Return a sentence about the duration of `run`, "" if it is not known."""
        text: str = _load(self.duration_location)(config) if self.duration_location else ""
        return text


def _load(location: str) -> Any:
    module, name = location.split(":")
    return getattr(import_module(f"inandout.stages.{module}"), name)


STAGES = {
    "main": Stage(
        "Compare classifiers with and without synthetic defects over seeds, in one table.",
        "experiment.config:CompareConfig",
        "experiment.compare:compare",
        "experiment.compare:plan",
    ),
    "check": Stage("Print the problems of a dataset and its numbers of images.", "config:CheckConfig", "data:check"),
    "surfaces": Stage(
        "Draw the embedded dataset, or one with other options.", "config:MakeSurfacesConfig", "data:surfaces"
    ),
    "download": Stage("Download KolektorSDD2 from its authors.", "config:DownloadConfig", "data:download"),
    "pretrain": Stage(
        "Train the embedded Stable Diffusion; the same command resumes a stopped training.",
        "config:PretrainConfig",
        "pretrain:pretrain",
    ),
    "finetune": Stage(
        "Train an adapter on the images of a product, or reuse the finished run.",
        "config:FinetuneConfig",
        "finetune:finetune",
        duration_location="experiment.duration:describe_duration",
    ),
    "convert": Stage(
        "Convert an adapter to kohya's format, or from it for a base.", "config:ConvertConfig", "convert:convert"
    ),
    "augment": Stage(
        "Generate a pool of synthetic positives, or reuse the finished run.",
        "pools.config:AugmentConfig",
        "pools.augment:augment",
        duration_location="experiment.duration:describe_duration",
    ),
    "filter": Stage(
        "Keep pool images that differ from good parts and resemble real defects, if there are any.",
        "analysis.config:FilterConfig",
        "analysis.filter:filter_pool",
    ),
    "review": Stage(
        "Serve a page to keep or reject images of a pool; decisions are logged at Ctrl-C.",
        "review.config:ReviewConfig",
        "review.run:review",
    ),
    "extend-pool": Stage(
        "Add images to a reviewed pool, with new seeds and the prompts that have a kept image.",
        "pools.config:ExtendPoolConfig",
        "pools.extend_pool:extend_pool",
    ),
    "export-pool": Stage(
        "Write a pool with its masks in the format of COCO, YOLO, MVTec-AD or Datumaro.",
        "pools.config:ExportPoolConfig",
        "pools.export_pool:export_pool",
    ),
    "label-errors": Stage(
        "Rank the labels of a dataset by the out-of-fold loss of classifiers.",
        "classify.config:LabelErrorsConfig",
        "classify.label_errors:find_label_errors",
    ),
    "classify": Stage(
        "Train and evaluate a classifier, or reuse the finished run.",
        "classify.config:ClassifyConfig",
        "classify.train:classify_and_report",
        duration_location="experiment.duration:describe_duration",
    ),
    "nearest": Stage(
        "Score the test part by distances to good parts, a baseline that never sees a defect.",
        "classify.config:NearestConfig",
        "classify.nearest:nearest",
    ),
    "export": Stage(
        "Write, check and time a classifier as an ONNX file.", "release.config:ExportConfig", "release.export:export"
    ),
    "search": Stage(
        "Find alpha and ddpm_ratio by validation, then evaluate the best three and the default on the test part.",
        "search.config:SearchConfig",
        "search.run:search",
    ),
    "probe-shortcut": Stage(
        "Test whether a classifier detects defects or artifacts of the generator.",
        "analysis.config:ProbeShortcutConfig",
        "analysis.probe_shortcut:probe_shortcut",
    ),
    "distance": Stage(
        "Measure distances of pools and real images to the real test positives.",
        "analysis.config:DistanceConfig",
        "analysis.distance:distance",
    ),
    "experiment": Stage(
        "Reproduce a table or figure of the paper, or our comparison; the same command resumes it.",
        "experiment.config:ExperimentConfig",
        "experiment.run:experiment",
        "experiment.run:plan",
    ),
    "report": Stage(
        "Report the finished cells of an experiment as HTML, Markdown, LaTeX, CSV and PNG.",
        "experiment.config:ReportConfig",
        "experiment.report:report",
    ),
    "promote": Stage(
        "Register a classifier as a model version; it becomes the champion if it beats the current one.",
        "release.config:PromoteConfig",
        "release.promote:promote",
    ),
    "rollback": Stage(
        "Move @champion back to the previous version; a second call undoes the first.",
        "release.config:RollbackConfig",
        "release.rollback:rollback",
    ),
    "clean": Stage(
        "List files beside the database that no finished run needs; remove them with --remove true.",
        "config:CleanConfig",
        "clean:clean",
    ),
}
"""Name to entry point."""

ALIASES = {"topup": "extend-pool", "labels": "label-errors", "probe": "probe-shortcut"}
"""Old names of entry points, on the command line and in MLproject; `--help` does not list them."""

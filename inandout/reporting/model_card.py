"""The model card: training data, evaluation, error rates, limits and commands of a model version."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from inandout.evaluation.operating_points import Mistakes, OperatingPoint
from inandout.reporting.tables import aligned


class Facts(NamedTuple):
    """Content of a model card, from the run of the classifier."""

    run_id: str
    config: Mapping[str, object]
    """All fields of the `classify` configuration."""
    params: Mapping[str, str]
    """Parameters of the run: image counts by part and origin, and the alpha."""
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    data_fingerprint: str
    test_fingerprint: str
    data_licence: str
    base_licence: str
    chosen: Sequence[OperatingPoint]
    """Operating points on the validation part."""
    measured: Sequence[OperatingPoint]
    """The same operating points on the test part."""
    commands: Sequence[str]


def command_line(stage: str, values: Mapping[str, object]) -> str:
    """Return the shell command that runs a stage with these values."""
    options = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", _as_option(value))]
    return shlex.join(["python", "-m", "inandout", stage, *options])


def _as_option(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def model_card(facts: Facts) -> str:
    """Return the model card as Markdown."""
    parts = [
        f"# Defect classifier of run {facts.run_id}",
        f"Network {facts.config['backbone']} with one defect logit{_tiles(facts)}{_head(facts)}."
        f"{_distances(facts)} An image is "
        "predicted as defective if its logit is at least the threshold of the operating point in use.",
        "## Training data", _bullets(_training(facts)),
        "## Evaluation", _bullets(_measurement(facts)),
        "## Operating points", points_table(facts.chosen, facts.measured), _points_note(facts),
        kinds_table(facts.measured),
        "## Limits", _bullets(_limits(facts)),
        "## Commands", "\n".join(["```bash", *facts.commands, "```"]), _bullets(_origin(facts)),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def _count(facts: Facts, name: str) -> str:
    return facts.params.get(f"n_{name}", "0")


def _training(facts: Facts) -> list[str]:
    config = facts.config
    synthetic = f"{_count(facts, 'train_memseg_positives')} from MemSeg, {_ddpm(facts)}"
    return [
        f"Data: `{config['data']}`, fingerprint `{facts.data_fingerprint}`, shot {_shot(config)}.",
        f"Real: {_count(facts, 'train_real_negatives')} good, {_count(facts, 'train_real_positives')} defective.",
        f"Synthetic defects: {synthetic}.",
        f"Size {config['width']}x{config['height']} (fit {config['fit']}), initial weights {config['weights']} "
        f"(`{facts.tags.get('inandout.weights', 'unknown')}`), frozen {config['freeze']}, "
        f"{config['epochs']} epochs of {config['optimiser']} at {config['lr']}, batch {config['batch_size']}, "
        f"{_seeds(config)}.",
        f"Licence of the data: {facts.data_licence}. Licence of the diffusion base: {facts.base_licence}.",
    ]


def _seeds(config: Mapping[str, Any]) -> str:
    own = config.get("training_seed")  # absent from older runs
    return f"seed {config['seed']}" + (f", training seed {own}" if own is not None else "")


def _shot(config: Mapping[str, Any]) -> str:
    """Return the real defects that were used."""
    each = " of each kind" if config.get("each_kind") else ""
    return f"few ({config['n_shot']} defects{each})" if config["shot"] == "few" else str(config["shot"])


def _tiles(facts: Facts) -> str:
    """Return how tiles give the logit; "" without them."""
    tile = facts.config.get("tile")  # absent from older runs
    return f", a smooth maximum over overlapping tiles of {tile} px" if tile else ""


def _head(facts: Facts) -> str:
    """Return what the mask head contributes; "" without one."""
    if facts.config["head"] != "mask":
        return ""
    weight = facts.metrics["map_weight"]
    return f" and a map of the defect; the logit combines the image ({1 - weight:.0%}) and the map ({weight:.0%})"


def _distances(facts: Facts) -> str:
    """Return how distances join the logit; "" without them."""
    if not facts.config.get("distances"):  # absent from older runs
        return ""
    scale, offset = facts.metrics["distance_scale"], facts.metrics["distance_offset"]
    return f" {scale:.3g} times (d - {offset:.3g}) is added to the logit; d: distance of the worst patch to good parts."


def _localisation(facts: Facts) -> list[str]:
    """Return a sentence on where the maps point; nothing if the test part has no masks."""
    metrics = facts.metrics
    if "pointing" not in metrics:
        return []
    names = {"pixel_ap": "average precision over pixels", "aupro": "AUPRO up to 30 % false positives", "iou": "IoU"}
    pixels = "".join(f", {name} {metrics[key]:.3f}" for key, name in names.items() if key in metrics)
    return [
        f"Maps: the maximum is on the defect in {metrics['pointing']:.0%} of the test images with a mask (chance: "
        f"{metrics['pointing_chance']:.0%}){pixels}."
    ]


def _ddpm(facts: Facts) -> str:
    count = _count(facts, "train_ddpm_positives")
    alpha = facts.config["alpha"]
    return f"{count} from diffusion" + ("" if alpha is None else f" (alpha {alpha:g})")


def _measurement(facts: Facts) -> list[str]:
    metrics, good, defective = facts.metrics, facts.measured[0].false_rejects, facts.measured[0].escapes
    return [
        f"Test part: {_count(facts, 'test_negatives')} good images of {good.of if good else 0} physical parts, "
        f"{_count(facts, 'test_positives')} defective images of {defective.of if defective else 0}, fingerprint "
        f"`{facts.test_fingerprint}`.",
        f"Average precision {ap_with_interval(metrics)}, one training run.",
        "With the threshold chosen on the test part, as in the paper (oracle): precision "
        f"{metrics['oracle_precision']:.3f}, recall {metrics['oracle_recall']:.3f}.",
        *_localisation(facts),
    ]


def ap_with_interval(metrics: Mapping[str, float]) -> str:
    """Return the average precision with its interval, as `0.812 (95 % 0.751 .. 0.866)`."""
    return f"{metrics['ap']:.3f} (95 % {metrics['ap_low']:.3f} .. {metrics['ap_high']:.3f})"


def points_table(chosen: Sequence[OperatingPoint], measured: Sequence[OperatingPoint]) -> str:
    """Return a table with one row per point: error rates per 1000 parts on test, and counts on validation."""
    lines = [
        ["operating point", "threshold", "escapes per 1000 defective", "false rejects per 1000 good", "on validation"]
    ]
    for validation, test in zip(chosen, measured, strict=True):
        counts = f"{_counts(validation.escapes)} missed, {_counts(validation.false_rejects)} rejected"
        lines.append([test.rule, f"{test.threshold:.4g}", _rate(test.escapes), _rate(test.false_rejects), counts])
    return aligned(lines)


def kinds_table(measured: Sequence[OperatingPoint]) -> str:
    """Return a table with one row per point and kind of defect of the test part; "" if no kind is known."""
    lines = [["operating point", "kind of defect", "found", "escaped", "escapes per 1000 of this kind, at most"]]
    for point in measured:
        for kind, escapes in point.escapes_by_kind.items():
            name = " ".join(kind.split()).replace("|", "\\|")
            counts = [f"{escapes.of - escapes.wrong} of {escapes.of}", str(escapes.wrong)]
            lines.append([point.rule, name, *counts, f"{escapes.per_1000_at_most:.1f}"])
    note = (
        "Physical parts of the test part by kind of defect; a part with defects of several kinds counts for each of "
        "them. Kinds with few parts have wide bounds."
    )
    return f"{note}\n\n{aligned(lines)}" if len(lines) > 1 else ""


def _rate(errors: Mistakes | None) -> str:
    if errors is None:
        return "unknown"
    return f"{errors.per_1000:.1f}, at most {errors.per_1000_at_most:.1f} ({errors.wrong} of {errors.of})"


def _counts(errors: Mistakes | None) -> str:
    return f"{errors.wrong} of {errors.of}" if errors else "0 of 0"


def _points_note(facts: Facts) -> str:
    lines = [f"`{point.rule}`: {'; '.join(point.sentences())}." for point in facts.measured]
    lines += [
        f"`{point.rule}` assumes that {point.defect_share:.2%} of all parts are defective."
        for point in facts.measured
        if point.defect_share is not None
    ]
    note = (
        "Thresholds were chosen on the validation part and measured on the test part. Counts are physical parts: a "
        "defective part escapes if one of its defect images is missed, a good part is a false reject if one of its "
        "images is predicted as defective. `at most` is the exact one-sided 95 % bound of Clopper and Pearson."
    )
    return f"{note}\n\n{_bullets(lines)}"


def _limits(facts: Facts) -> list[str]:
    limits = [
        "Bounds hold for parts like those of the test part: the same product, lighting, camera and kinds of defects.",
        "Every promotion reuses the test part, which biases repeated decisions; renew the test part regularly.",
        "The model is one training run with one seed; the intervals do not include the variance between seeds.",
        f"Size of defects: {facts.tags.get('inandout.survival', 'unknown')}.",
    ]
    if not any(point.escapes for point in facts.chosen):
        limits.append("The validation part has no real defect; escapes are known from the test part only.")
    if notes := facts.tags.get("inandout.notes"):
        limits.append(f"Notes of the run: {notes}.")
    return limits


def _origin(facts: Facts) -> list[str]:
    commit = facts.tags.get("mlflow.source.git.commit", "unknown")
    return [
        f"Run of `classify`: `{facts.run_id}`.",
        f"Code: commit `{commit}`, fingerprint `{facts.tags.get('inandout.code', 'unknown')}`.",
    ]

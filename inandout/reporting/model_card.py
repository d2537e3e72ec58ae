"""The model card: what a version was trained and measured on, what it lets through, its limits, how it was made."""

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from inandout.evaluation.operating_points import Mistakes, OperatingPoint
from inandout.reporting.tables import aligned


class Facts(NamedTuple):
    """What a card says, as the classifier's run holds it."""

    run_id: str
    config: Mapping[str, object]
    """Of `classify`, every field."""
    params: Mapping[str, str]
    """Of the run: counts of images by part and origin, the alpha that was used."""
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    data_fingerprint: str
    test_fingerprint: str
    data_licence: str
    base_licence: str
    chosen: Sequence[OperatingPoint]
    """On the validation part."""
    measured: Sequence[OperatingPoint]
    """The same on the test part."""
    commands: Sequence[str]


def command_line(stage: str, given: Mapping[str, object]) -> str:
    """What a person types to run a stage with these values."""
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", _typed(value))]
    return shlex.join(["python", "-m", "inandout", stage, *options])


def _typed(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def model_card(facts: Facts) -> str:
    """The card as Markdown."""
    parts = [
        f"# Defect classifier of run {facts.run_id}",
        "A ResNet-50 with one defect logit. An image is called defective where its logit reaches the threshold of the "
        "operating point in use.",
        "## Trained on", _bullets(_training(facts)),
        "## Measured on", _bullets(_measurement(facts)),
        "## Operating points", points_table(facts.chosen, facts.measured), _points_note(facts),
        "## Limits", _bullets(_limits(facts)),
        "## Made by", "\n".join(["```bash", *facts.commands, "```"]), _bullets(_origin(facts)),
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
        f"Data: `{config['data']}`, fingerprint `{facts.data_fingerprint}`, shot {config['shot']}.",
        f"Real: {_count(facts, 'train_real_negatives')} good, {_count(facts, 'train_real_positives')} defective.",
        f"Synthetic defects: {synthetic}.",
        f"Size {config['width']}x{config['height']} (fit {config['fit']}), start {config['weights']}, "
        f"{config['epochs']} epochs of {config['optimiser']} at {config['lr']}, batch {config['batch_size']}, "
        f"seed {config['seed']}.",
        f"Licence of the data: {facts.data_licence}. Licence of the diffusion base: {facts.base_licence}.",
    ]


def _ddpm(facts: Facts) -> str:
    count = _count(facts, "train_ddpm_positives")
    alpha = facts.config["alpha"]
    return f"{count} from diffusion" + ("" if alpha is None else f" (alpha {alpha:g})")


def _measurement(facts: Facts) -> list[str]:
    metrics = facts.metrics
    return [
        f"Test part: {_count(facts, 'test_negatives')} good and {_count(facts, 'test_positives')} defective images, "
        f"fingerprint `{facts.test_fingerprint}`.",
        f"Average precision {ap_with_interval(metrics)}, one training.",
        f"By the paper's protocol, whose threshold comes from the test part itself: precision "
        f"{metrics['oracle_precision']:.3f}, recall {metrics['oracle_recall']:.3f} (oracle).",
    ]


def ap_with_interval(metrics: Mapping[str, float]) -> str:
    """`0.812 (95 % 0.751 .. 0.866)`."""
    return f"{metrics['ap']:.3f} (95 % {metrics['ap_low']:.3f} .. {metrics['ap_high']:.3f})"


def points_table(chosen: Sequence[OperatingPoint], measured: Sequence[OperatingPoint]) -> str:
    """A line a point: escapes of 1000 defective parts, false rejects of 1000 good ones, on test and on validation."""
    lines = [
        ["operating point", "threshold", "escapes of 1000 defective", "false rejects of 1000 good", "on validation"]
    ]
    for before, after in zip(chosen, measured, strict=True):
        validation = f"{_counts(before.escapes)} missed, {_counts(before.false_rejects)} rejected"
        lines.append(
            [after.rule, f"{after.threshold:.4g}", _rate(after.escapes), _rate(after.false_rejects), validation]
        )
    return aligned(lines)


def _rate(found: Mistakes | None) -> str:
    if found is None:
        return "unknown"
    return f"{found.per_1000:.1f}, at most {found.per_1000_at_most:.1f} ({found.wrong} of {found.of})"


def _counts(found: Mistakes | None) -> str:
    return f"{found.wrong} of {found.of}" if found else "0 of 0"


def _points_note(facts: Facts) -> str:
    lines = [f"`{point.rule}`: {'; '.join(point.sentences())}." for point in facts.measured]
    lines += [
        f"`{point.rule}` weighs {point.defect_share:.2%} of all parts as defective."
        for point in facts.measured
        if point.defect_share is not None
    ]
    note = (
        "Thresholds were chosen on the validation part and counted on the test part; `at most` is the exact one-sided "
    )
    return f"{note}95 % bound of Clopper and Pearson.\n\n{_bullets(lines)}"


def _limits(facts: Facts) -> list[str]:
    limits = [
        "Bounds hold for parts like those of the test part: same product, light, camera and kinds of defects.",
        "The test part is looked at again with every promotion; a number of them wear it out, so renew it in time.",
        "One training with one seed: another seed gives another model, and its spread is not in these intervals.",
        f"Size of defects: {facts.tags.get('inandout.survival', 'unknown')}.",
    ]
    if not any(point.escapes for point in facts.chosen):
        limits.append(
            "No real defect was there to choose a threshold on; how many escape is known from the test part alone."
        )
    if notes := facts.tags.get("inandout.notes"):
        limits.append(f"Remarks of the run: {notes}.")
    return limits


def _origin(facts: Facts) -> list[str]:
    commit = facts.tags.get("mlflow.source.git.commit", "unknown")
    return [
        f"Run of `classify`: `{facts.run_id}`.",
        f"Code: commit `{commit}`, fingerprint `{facts.tags.get('inandout.code', 'unknown')}`.",
    ]

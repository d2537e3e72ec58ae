"""Table and conclusion of the shortcut probe."""

from collections.abc import Sequence

from inandout.evaluation.shortcut_probe import VAE, PerturbationEffect
from inandout.reporting.tables import aligned


def effect_table(effects: Sequence[PerturbationEffect]) -> str:
    """Return a Markdown table with one row per perturbation."""
    lines = [["perturbation", "mean pixel change", "AUROC (95 %)", "logit change (95 %)", "predicted as defects"]]
    for effect in effects:
        called = "no threshold" if effect.called is None else f"{effect.called[0]:.1%} -> {effect.called[1]:.1%}"
        levels = f"{effect.responses.levels:.2f} of 255"
        lines.append([effect.perturbation.name, levels, effect.auroc.text(), effect.rise.text(signed=True), called])
    return aligned(lines)


def conclusion(effects: Sequence[PerturbationEffect]) -> str:
    """Return a sentence on whether the classifier reacts to artefacts of the generator's VAE and of other processing.

    Artefacts of the UNet are not covered, because they cannot be added to real images.
    """
    (vae,) = [effect for effect in effects if effect.perturbation.key == VAE]
    others = [effect for effect in effects if effect.perturbation.key != VAE and effect.is_significant()]
    setup = f"{len(vae.responses.before)} real good parts were passed through the {vae.perturbation.name}"
    called = f", {vae.called[1]:.0%} are predicted as defects instead of {vae.called[0]:.0%}" if vae.called else ""
    also = "".join(
        f"; it also reacts to {effect.perturbation.name} (AUROC {effect.auroc.value:.3f})" for effect in others
    )
    return f"{_answer(vae)}: {setup}; the AUROC against the originals is {vae.auroc.text()}{called}{also}."


def _answer(vae: PerturbationEffect) -> str:
    if vae.is_significant():
        return "The classifier REACTS to artefacts of the generator's VAE as if they were defects"
    if vae.auroc.low > 0.5:
        return "The classifier hardly reacts to artefacts of the generator's VAE"
    if vae.auroc.high < 0.5:
        return "The classifier takes artefacts of the generator's VAE for a sign of good parts"
    return "No significant reaction to artefacts of the generator's VAE"

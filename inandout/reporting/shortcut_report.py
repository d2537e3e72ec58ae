"""The shortcut probe as a table and a sentence."""

from collections.abc import Sequence

from inandout.evaluation.shortcut_probe import VAE, PerturbationEffect
from inandout.reporting.tables import aligned


def effect_table(effects: Sequence[PerturbationEffect]) -> str:
    """A line a change, as Markdown."""
    lines = [["done to good parts", "changes a pixel by", "AUROC (95 %)", "logit (95 %)", "called defects"]]
    for one in effects:
        called = "no threshold" if one.called is None else f"{one.called[0]:.1%} -> {one.called[1]:.1%}"
        levels = f"{one.responses.levels:.2f} of 255"
        lines.append([one.perturbation.name, levels, one.auroc.words(), one.rise.words(signed=True), called])
    return aligned(lines)


def conclusion(effects: Sequence[PerturbationEffect]) -> str:
    """Whether the classifier reacts to the fingerprint of the generator's VAE, and to what else.

    It is one fingerprint of several: how the UNet draws the ground is another, which no real image can be given.
    """
    (vae,) = [one for one in effects if one.perturbation.key == VAE]
    also = [one for one in effects if one.perturbation.key != VAE and one.is_significant()]
    asked = f"{len(vae.responses.before)} real good parts went through the {vae.perturbation.name}, without a defect"
    called = f", and {vae.called[1]:.0%} are called defects instead of {vae.called[0]:.0%}" if vae.called else ""
    other = "".join(f"; it reacts to {one.perturbation.name}, too (AUROC {one.auroc.value:.3f})" for one in also)
    return f"{_answer(vae)}: {asked}; AUROC against untouched is {vae.auroc.words()}{called}{other}."


def _answer(vae: PerturbationEffect) -> str:
    if vae.is_significant():
        return "The classifier REACTS to the fingerprint of the generator's VAE as to a defect"
    if vae.auroc.low > 0.5:
        return "The classifier hardly reacts to the fingerprint of the generator's VAE"
    if vae.auroc.high < 0.5:
        return "The classifier takes the fingerprint of the generator's VAE for a sign of good parts"
    return "No reaction to the fingerprint of the generator's VAE can be told from chance"

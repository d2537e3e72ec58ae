"""Figures of a comparison: forest plot of differences, learning curve over the number of real defects."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from inandout.evaluation.paired_test import Difference
from inandout.reporting.paper_results import Estimate

_COLOURS = {"better": "tab:green", "worse": "tab:red", "no significant difference": "0.4"}


def forest_plot(differences: Mapping[str, Difference], label: str) -> Figure:
    """Plot differences with their 95 % intervals, one row per question, in order from the top.

    Args:
        differences: question to difference.
        label: label of the axis.
    """
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(differences)), layout="constrained")
    axes = figure.subplots()
    upwards = list(differences.items())[::-1]
    for height, (_, found) in enumerate(upwards):
        colour = _COLOURS[found.verdict()]
        axes.plot([found.low, found.high], [height, height], color=colour)
        axes.plot(found.mean, height, "o", color=colour)
    axes.set_yticks(range(len(upwards)), [question for question, _ in upwards], fontsize="small")
    axes.axvline(0, color="0.7", linestyle=":")
    axes.set(xlabel=label, ylim=(-0.8, len(differences) - 0.2))
    return figure


def learning_curve_plot(curve: Mapping[int, Estimate], sources: Mapping[str, float]) -> Figure:
    """Plot AP against the number of real defects, with one standard deviation, and the AP of sources as lines.

    Args:
        curve: number of real defects to AP.
        sources: name to AP.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    numbers = sorted(curve)
    means, spreads = [curve[n].mean for n in numbers], [curve[n].spread or 0.0 for n in numbers]
    axes.errorbar(numbers, means, spreads, fmt="o-", color="black", capsize=3, label="real defects only")
    for number, (name, ap) in enumerate(sources.items()):
        axes.axhline(ap, color=f"C{number}", linestyle="--", label=name)
    axes.set(xlabel="real defects in the training part", ylabel="AP", xscale="log", ylim=(0, 1))
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure

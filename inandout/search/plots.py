"""Optuna's plots of a study."""

import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from optuna import Study
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState


def figures(study: Study) -> dict[str, Figure]:
    """Return figures by name; most need one complete trial, `importance` and `contour` need two different values."""
    matplotlib.use("Agg")  # Optuna uses pyplot, which may select a backend with a display
    from optuna.visualization import matplotlib as draw

    values = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    with_one_value: dict[str, Callable[[Study], Any]] = {
        "history": draw.plot_optimization_history,
        "slice": draw.plot_slice,
        "timeline": draw.plot_timeline,
        "intermediate_values": draw.plot_intermediate_values,
    }
    with_two_values: dict[str, Callable[[Study], Any]] = {
        "importance": draw.plot_param_importances,
        "contour": draw.plot_contour,
    }
    plots = (with_one_value if values else {}) | (with_two_values if len(set(values)) > 1 else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the plots are experimental since Optuna 2.2
        return {name: _figure(plot(study)) for name, plot in plots.items()}


def _figure(axes: Any) -> Figure:
    """Return the figure of axes or of an array of axes, resized."""
    figure: Figure = np.ravel(axes)[0].figure
    figure.set_size_inches(12, 7)
    return figure

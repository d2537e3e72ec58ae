"""Optuna's own figures of a study."""

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
    """Figures by name, as far as there are trials enough: one that is complete, for some of them two that differ."""
    matplotlib.use("Agg")  # Optuna draws with pyplot, which would look for a screen
    from optuna.visualization import matplotlib as draw

    values = [trial.value for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    one: dict[str, Callable[[Study], Any]] = {
        "history": draw.plot_optimization_history,
        "slice": draw.plot_slice,
        "timeline": draw.plot_timeline,
        "intermediate_values": draw.plot_intermediate_values,
    }
    two: dict[str, Callable[[Study], Any]] = {
        "importance": draw.plot_param_importances,
        "contour": draw.plot_contour,
    }
    wanted = (one if values else {}) | (two if len(set(values)) > 1 else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # they have been experimental since Optuna 2.2
        return {name: _figure(plot(study)) for name, plot in wanted.items()}


def _figure(axes: Any) -> Figure:
    """Of axes or an array of them."""
    figure: Figure = np.ravel(axes)[0].figure
    figure.set_size_inches(12, 7)
    return figure

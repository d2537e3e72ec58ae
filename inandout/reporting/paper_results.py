"""Results of the paper on KolektorSDD2 (Tables 1 to 6), mean and standard deviation over four seeds; and of DIAG."""

from typing import NamedTuple

from inandout.data.config import Shot


class Estimate(NamedTuple):
    """Mean of a metric over seeds."""

    mean: float
    spread: float | None
    """Sample standard deviation; None for a single seed."""


Published = dict[str, Estimate]
"""Maps metric names to published values; the paper chooses thresholds on the test part, hence `oracle_`."""


def _cell(ap: float, ap_std: float, p: float, p_std: float, r: float, r_std: float) -> Published:
    return {"ap": Estimate(ap, ap_std), "oracle_precision": Estimate(p, p_std), "oracle_recall": Estimate(r, r_std)}


PUBLISHED: dict[tuple[Shot, str, int], Published] = {
    ("zero", "MemSeg", 80): _cell(0.514, 0.026, 0.733, 0.113, 0.436, 0.033),
    ("zero", "MemSeg", 100): _cell(0.388, 0.066, 0.633, 0.129, 0.432, 0.054),
    ("zero", "MemSeg", 120): _cell(0.511, 0.050, 0.683, 0.054, 0.470, 0.091),
    ("zero", "DDPM", 80): _cell(0.547, 0.086, 0.427, 0.301, 0.695, 0.194),
    ("zero", "DDPM", 100): _cell(0.532, 0.028, 0.387, 0.277, 0.714, 0.286),
    ("zero", "DDPM", 120): _cell(0.445, 0.186, 0.465, 0.329, 0.591, 0.274),
    ("zero", "In&Out", 80): _cell(0.556, 0.085, 0.530, 0.219, 0.655, 0.065),
    ("zero", "In&Out", 100): _cell(0.626, 0.059, 0.742, 0.109, 0.568, 0.029),
    ("zero", "In&Out", 120): _cell(0.536, 0.023, 0.699, 0.085, 0.534, 0.086),
    ("few", "MemSeg", 80): _cell(0.582, 0.018, 0.836, 0.101, 0.466, 0.049),
    ("few", "MemSeg", 100): _cell(0.511, 0.086, 0.686, 0.082, 0.527, 0.069),
    ("few", "MemSeg", 120): _cell(0.593, 0.044, 0.801, 0.065, 0.507, 0.053),
    ("few", "DDPM", 80): _cell(0.580, 0.045, 0.542, 0.270, 0.634, 0.212),
    ("few", "DDPM", 100): _cell(0.526, 0.075, 0.610, 0.063, 0.477, 0.081),
    ("few", "DDPM", 120): _cell(0.535, 0.063, 0.659, 0.127, 0.491, 0.046),
    ("few", "In&Out", 80): _cell(0.531, 0.041, 0.507, 0.220, 0.655, 0.126),
    ("few", "In&Out", 100): _cell(0.578, 0.041, 0.450, 0.343, 0.761, 0.245),
    ("few", "In&Out", 120): _cell(0.575, 0.025, 0.635, 0.316, 0.636, 0.189),
    ("full", "none", 0): _cell(0.747, 0.055, 0.826, 0.081, 0.723, 0.058),
    ("full", "In&Out", 80): _cell(0.747, 0.022, 0.764, 0.046, 0.734, 0.032),
    ("full", "In&Out", 100): _cell(0.775, 0.013, 0.868, 0.050, 0.720, 0.026),
    ("full", "In&Out", 120): _cell(0.782, 0.030, 0.906, 0.064, 0.689, 0.030),
    ("full", "MemSeg", 80): _cell(0.744, 0.007, 0.851, 0.055, 0.691, 0.058),
    ("full", "MemSeg", 100): _cell(0.774, 0.016, 0.814, 0.038, 0.752, 0.028),
    ("full", "MemSeg", 120): _cell(0.734, 0.032, 0.772, 0.107, 0.707, 0.031),
    ("full", "DDPM", 80): _cell(0.758, 0.007, 0.808, 0.056, 0.768, 0.043),
    ("full", "DDPM", 100): _cell(0.763, 0.008, 0.829, 0.059, 0.725, 0.034),
    ("full", "DDPM", 120): _cell(0.772, 0.034, 0.858, 0.084, 0.725, 0.061),
}
"""Maps shot, source and `n_aug` to the published values."""

DIAG: dict[tuple[Shot, str, int], Published] = {
    ("zero", "DIAG", 80): {"ap": Estimate(0.769, None)},
    ("zero", "DIAG", 100): {"ap": Estimate(0.801, None)},
    ("zero", "DIAG", 120): {"ap": Estimate(0.739, None)},
    ("full", "DIAG", 80): {"ap": Estimate(0.869, None)},
    ("full", "DIAG", 100): {"ap": Estimate(0.911, None)},
    ("full", "DIAG", 120): {"ap": Estimate(0.924, None)},
}
"""The same of DIAG (Girella 2024), with its own classifier and without a spread."""

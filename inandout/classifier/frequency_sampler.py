"""Sampling of an epoch: all positives and an equal number of the least used negatives."""

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


class FrequencySampler:
    """Frequency-of-use sampling of negatives (Bozic et al. 2021; official KolektorSDD2 code).

    Each epoch contains every positive once and the same number of negatives, shuffled. The negatives of the first epoch
    are a random permutation; later ones are drawn without replacement with
    p ~ (1 - f / max f - median(1 - f / max f) + 1) ** (4 ln n_neg), f = number of uses so far.
    With fewer negatives than positives, every negative is used before any is repeated.
    The `every_epoch` negatives are added to each epoch once.
    """

    def __init__(
        self, labels: npt.NDArray[np.integer[Any]], seed: int, every_epoch: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """`labels` (N,) contain both 0 and 1; `every_epoch` (N,) marks additional negatives of every epoch."""
        self.every_epoch = np.flatnonzero(np.zeros(len(labels), bool) if every_epoch is None else every_epoch)
        self.positives = np.flatnonzero(labels == 1)
        self.negatives = np.setdiff1d(np.flatnonzero(labels == 0), self.every_epoch)
        if not len(self.positives) or not len(self.negatives):
            counts = f"{len(self.positives)} positives and {len(self.negatives)} negatives"
            raise ValueError(f"got {counts}; at least one of each is required")
        self.used = np.zeros(len(self.negatives), np.int64)
        self.rng = np.random.default_rng(seed)

    def epoch(self) -> Indices:
        """Return indices into `labels` for one epoch, in training order."""
        total = len(self.positives)
        rounds = [len(self.negatives)] * (total // len(self.negatives)) + [total % len(self.negatives)]
        negatives = np.concatenate([self._draw_negatives(count) for count in rounds])
        return self.rng.permutation(np.concatenate([self.positives, self.negatives[negatives], self.every_epoch]))

    def state(self) -> dict[str, Any]:
        """Return the JSON-compatible state for a checkpoint."""
        return {"used": self.used.tolist(), "rng": self.rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state returned by `state`."""
        self.used = np.asarray(state["used"], np.int64)
        self.rng.bit_generator.state = state["rng"]

    def _draw_negatives(self, count: int) -> Indices:
        if self.used.max() == 0:
            chosen = self.rng.permutation(len(self.used))[:count]
        else:
            chosen = self.rng.choice(len(self.used), count, replace=False, p=self._probabilities())
        self.used[chosen] += 1
        return chosen

    def _probabilities(self) -> npt.NDArray[np.float64]:
        unused = 1 - self.used / self.used.max()
        weights = (unused - np.median(unused) + 1) ** (4 * np.log(len(unused)))
        weights = np.maximum(weights, 1e-100 * weights.max())  # above 0, since a draw may need every negative
        probabilities: npt.NDArray[np.float64] = weights / weights.sum()
        return probabilities

"""Which images an epoch sees: all positives and as many negatives, those used least first."""

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


class FrequencySampler:
    """Frequency-of-use sampling of negatives (Bozic et al. 2021; official KolektorSDD2 code).

    Each epoch holds every positive once and the same number of negatives, shuffled. Negatives of the first epoch are a
    random permutation; later ones are drawn without replacement with
    p ~ (1 - f / max f - median(1 - f / max f) + 1) ** (4 ln n_neg), f = times used so far.
    With fewer negatives than positives every negative is used before one is used again.
    Beside these, an epoch holds once what must be in every one.
    """

    def __init__(
        self, labels: npt.NDArray[np.integer[Any]], seed: int, every_epoch: npt.NDArray[np.bool_] | None = None
    ) -> None:
        """`labels` (N,) of 0 and 1, both there; `every_epoch` (N,): further negatives that every epoch shows."""
        self.every_epoch = np.flatnonzero(np.zeros(len(labels), bool) if every_epoch is None else every_epoch)
        self.positives = np.flatnonzero(labels == 1)
        self.negatives = np.setdiff1d(np.flatnonzero(labels == 0), self.every_epoch)
        if not len(self.positives) or not len(self.negatives):
            raise ValueError(f"need both labels, got {len(self.positives)} positives, {len(self.negatives)} negatives")
        self.used = np.zeros(len(self.negatives), np.int64)
        self.rng = np.random.default_rng(seed)

    def epoch(self) -> Indices:
        """Indices into `labels` for one epoch, in training order."""
        wanted = len(self.positives)
        rounds = [len(self.negatives)] * (wanted // len(self.negatives)) + [wanted % len(self.negatives)]
        negatives = np.concatenate([self._draw_negatives(count) for count in rounds])
        return self.rng.permutation(np.concatenate([self.positives, self.negatives[negatives], self.every_epoch]))

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on exactly here; JSON-compatible."""
        return {"used": self.used.tolist(), "rng": self.rng.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
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
        weights = np.maximum(weights, 1e-100 * weights.max())  # never exactly 0: the draw may need every negative
        probabilities: npt.NDArray[np.float64] = weights / weights.sum()
        return probabilities

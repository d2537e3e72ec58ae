"""Per-image losses, for finding label errors."""

import numpy as np
import numpy.typing as npt

from inandout.classifier.training import Labels, Logits


def label_losses(logits: Logits, labels: Labels) -> npt.NDArray[np.float64]:
    """Return the cross-entropy (N,) in nats of defect logits (N,) and labels 0 or 1; above ln 2 they disagree."""
    return np.logaddexp(0, np.where(labels == 1, -logits, logits))

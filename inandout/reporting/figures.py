"""Contact sheets, mask outlines, precision-recall curves and score histograms."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from inandout.data.images import ImageArray, Mask

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGIN, _LINE = 6, 12
_BACKGROUND, _TEXT = (255, 255, 255), (30, 30, 30)


def contact_sheet(images: Sequence[ImageArray], captions: Sequence[str], columns: int = 8) -> ImageArray:
    """Arrange images (H, W, 3) on a white grid with `columns` images per row and a caption below each."""
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    cell = max(width, 90)
    wrapped = [textwrap.wrap(caption, cell // 6, max_lines=3, placeholder="…") for caption in captions]
    step_x, step_y = cell + _MARGIN, height + _MARGIN + _LINE * max(1, *map(len, wrapped))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (min(columns, len(images)) * step_x + _MARGIN, rows * step_y + _MARGIN), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for i, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        left, top = _MARGIN + i % columns * step_x, _MARGIN + i // columns * step_y
        sheet.paste(Image.fromarray(np.asarray(image)), (left, top))
        for number, line in enumerate(lines):
            draw.text((left, top + height + number * _LINE), line, _TEXT, font)
    return np.asarray(sheet)


def outline(image: ImageArray, mask: Mask) -> ImageArray:
    """Draw a red line around the mask (H, W), at a distance of two pixels."""
    marked = image.copy()
    marked[binary_dilation(mask, iterations=3) & ~binary_dilation(mask, iterations=2)] = (230, 30, 30)
    return marked


def overlay(image: ImageArray, heat: npt.NDArray[np.floating[Any]]) -> ImageArray:
    """Colour an image (H, W, 3) by a map (h, w) that is resized to it: unchanged at 0, more than half yellow at 1."""
    size = (image.shape[1], image.shape[0])
    resized = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    opacity = 0.6 * resized.clip(0, 1)[..., None]
    mixed: ImageArray = np.rint((1 - opacity) * image + opacity * (255, 210, 0)).astype(np.uint8)
    return mixed


def pr_curve(
    logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], points: dict[str, tuple[float, float]]
) -> "Figure":
    """Plot the precision-recall curve of logits (N,), with named operating points (recall, precision)."""
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, logits)
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.step(recall, precision, where="post", color="tab:blue")
    axes.axhline(labels.mean(), color="0.7", linestyle=":", label="all predicted as defects")
    for (name, (x, y)), marker in zip(points.items(), "os^", strict=False):
        axes.plot(x, y, marker, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return figure


def score_plot(groups: Mapping[str, npt.NDArray[np.float64]], threshold: float | None) -> "Figure":
    """Plot a histogram of the scores (N,) of each group, with common bins and a line at `threshold` unless None."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    bins = np.histogram_bin_edges(np.concatenate(list(groups.values())), 30)
    for name, scores in groups.items():
        share = np.full(len(scores), 1 / max(len(scores), 1))
        axes.hist(scores, bins.tolist(), weights=share, histtype="step", linewidth=1.5, label=f"{name} ({len(scores)})")
    if threshold is not None:
        axes.axvline(threshold, color="0.4", linestyle=":", label="honest threshold")
    axes.set(xlabel="defect logit", ylabel="share of images")
    axes.legend(fontsize="small")
    return figure

"""Draw the figure of the pipeline as SVG, once for light and once for dark pages.

python docs/draw_pipeline.py
"""

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

HERE = Path(__file__).parent
WIDTH, HEIGHT = 1060, 384
LINE = 17
"""Distance of text lines in px."""


class Theme(NamedTuple):
    """Colours of one version of the figure."""

    text: str
    faint: str
    box: str
    border: str
    real: str
    memseg: str
    diffusion: str
    result: str


THEMES = {
    "light": Theme("#1f2328", "#57606a", "#f6f8fa", "#afb8c1", "#0969da", "#9a6700", "#8250df", "#1a7f37"),
    "dark": Theme("#e6edf3", "#9198a1", "#161b22", "#3d444d", "#4493f8", "#d29922", "#ab7df8", "#3fb950"),
}


class Box(NamedTuple):
    """A box with a title and lines of text; `colour` is a field of `Theme`."""

    x: int
    y: int
    width: int
    height: int
    colour: str
    title: str
    lines: tuple[str, ...]


BOXES = [
    Box(16, 120, 160, 112, "real", "Your images", (
        "good parts", "few or no defects", "CSV or folders", "checked for leaks")),
    Box(216, 24, 196, 112, "memseg", "MemSeg", (
        "out of distribution", "noise masks, textures", "on real good parts", "no training")),
    Box(216, 216, 196, 112, "diffusion", "Stable Diffusion", (
        "in distribution", "DreamBooth + LoRA", "merged with weight alpha", "or inpainting")),
    Box(452, 120, 172, 112, "text", "Review", ("people keep or reject", "filter by features", "optional")),
    Box(664, 120, 176, 112, "text", "Train", ("ResNet-50 on the mix", "no, few or all defects", "several seeds")),
    Box(880, 24, 164, 112, "result", "Measure", (
        "AP with interval", "threshold from", "validation images", "paired verdict")),
    Box(880, 216, 164, 112, "result", "Use", ("model registry", "HTTP server", "ONNX file")),
]  # fmt: skip
ARROWS = [
    (176, 150, 216, 96), (176, 202, 216, 256), (412, 96, 452, 150), (412, 256, 452, 202), (624, 176, 664, 176),
    (840, 150, 880, 96), (840, 202, 880, 256),
]  # fmt: skip
FOOTER = "MLflow keeps every run, image, decision and model. Optuna searches alpha and the mix."


def pipeline(theme: Theme) -> str:
    """Return the figure as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' role="img" font-family="system-ui, -apple-system, \'Segoe UI\', Helvetica, Arial, sans-serif">',
        "<title>Real images, MemSeg and Stable Diffusion defects, review, training, measurement, use</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{theme.faint}"/></marker></defs>',
        *(_box(box, theme) for box in BOXES),
        *(_arrow(*arrow, theme) for arrow in ARROWS),
        f'<path d="M{BOXES[0].x} 348H{WIDTH - BOXES[0].x}" stroke="{theme.border}" stroke-dasharray="4 4"/>',
        _text(WIDTH // 2, 370, FOOTER, theme.faint, 'font-size="14" text-anchor="middle"'),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(box: Box, theme: Theme) -> str:
    colour, left = getattr(theme, box.colour), box.x + 12
    lines = [
        _text(left, box.y + 31 + LINE * (row + 1), line, theme.faint, 'font-size="13"')
        for row, line in enumerate(box.lines)
    ]
    frame = f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"'
    title = _text(left, box.y + 27, box.title, colour, 'font-size="16" font-weight="600"')
    return "\n".join([f'{frame} fill="{theme.box}" stroke="{theme.border}"/>', title, *lines])


def _arrow(x1: int, y1: int, x2: int, y2: int, theme: Theme) -> str:
    middle = (x1 + x2) // 2
    path = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2 - 2} {y2}"
    return f'<path d="{path}" fill="none" stroke="{theme.faint}" stroke-width="1.5" marker-end="url(#head)"/>'


def _text(x: int, y: int, text: str, colour: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" {style}>{escape(text)}</text>'


def main() -> None:
    """Write both versions."""
    for name, theme in THEMES.items():
        (HERE / f"pipeline-{name}.svg").write_text(pipeline(theme), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

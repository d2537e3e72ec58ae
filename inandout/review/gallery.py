"""A static HTML gallery of a pool: embedded thumbnails, links to the full-size images, keyboard navigation."""

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from inandout.data.images import read_image
from inandout.data.manifest import Sample
from inandout.data.text import write_text
from inandout.review.views import thumbnail_webp

MAX_IMAGES = 2000
"""Maximum number of images in a gallery; larger files make browsers slow."""


def write_gallery(file: Path, title: str, folder: Path, pool: Sequence[Sample], address: str) -> None:
    """Write the gallery of a pool.

    Args:
        file: output file.
        title: plain text, escaped in the page.
        folder: folder of the images.
        pool: rows of the pool; only the first `MAX_IMAGES` are shown, with a note.
        address: URL of `folder` relative to `file`, such as ../pool. If it does not exist, for example in the MLflow
            UI, the page enlarges the thumbnails.
    """
    shown = pool[:MAX_IMAGES]
    count = f"{len(pool)} images" if len(shown) == len(pool) else f"the first {MAX_IMAGES} of {len(pool)} images"
    cards = [_card(index, sample, f"{address}/{_name(sample, folder)}") for index, sample in enumerate(shown)]
    values = {
        "title": escape(title), "remark": count, "style": _page_file("gallery.css"), "script": _page_file("gallery.js"),
        "cards": "\n".join(cards),
    }  # fmt: skip
    head, *pieces = _page_file("gallery.html").split("{{")
    text = head + "".join(values[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces))
    write_text(file, text)


def caption(sample: Sample) -> str:
    """Return the caption of an image: prompt, kind of defect, origin, seed and alpha."""
    optional = {"seed": sample.seed, "alpha": sample.alpha}
    facts = [sample.origin, *(f"{name} {value}" for name, value in optional.items() if value is not None)]
    return " · ".join([text for text in (sample.prompt, sample.defect) if text] + facts)


def _card(index: int, sample: Sample, address: str) -> str:
    thumbnail = base64.b64encode(thumbnail_webp(read_image(sample.image))).decode()
    return (
        f'<figure tabindex="{0 if index == 0 else -1}" data-whole="{escape(address)}">'
        f'<img alt="image {index + 1}" decoding="async" src="data:image/webp;base64,{thumbnail}">'
        f"<figcaption>{escape(caption(sample))}</figcaption></figure>"
    )


def _name(sample: Sample, folder: Path) -> str:
    return quote(sample.image.relative_to(folder).as_posix())


def _page_file(name: str) -> str:
    return files("inandout.review").joinpath("page", name).read_text(encoding="utf-8")

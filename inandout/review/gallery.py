"""A pool as one HTML file that needs no server: small images in it, whole ones beside it, keys to move."""

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

MOST = 2000
"""Images that a gallery shows; more would make a file that browsers are slow with."""


def write_gallery(file: Path, title: str, folder: Path, pool: Sequence[Sample], address: str) -> None:
    """Write the gallery of a pool.

    Args:
        file: to be written, under a temporary name first.
        title: shown as text.
        folder: that the images of the pool lie in.
        pool: its rows; the first `MOST` are shown, and the page says so.
        address: of `folder` as seen from `file`, such as ../pool; where it leads nowhere, because the file was copied
            alone or MLflow shows it, the small images are enlarged.
    """
    shown = pool[:MOST]
    count = f"{len(pool)} images" if len(shown) == len(pool) else f"the first {MOST} of {len(pool)} images"
    cards = [_card(place, one, f"{address}/{_name(one, folder)}") for place, one in enumerate(shown)]
    parts = {
        "title": escape(title), "remark": count, "style": _part("gallery.css"), "script": _part("gallery.js"),
        "cards": "\n".join(cards),
    }  # fmt: skip
    pieces = _part("gallery.html").split("{{")
    text = pieces[0] + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces[1:]))
    write_text(file, text)


def caption(sample: Sample) -> str:
    """What a person wants to read below an image."""
    known = {"seed": sample.seed, "alpha": sample.alpha}
    facts = [sample.origin, *(f"{name} {value}" for name, value in known.items() if value is not None)]
    return " · ".join([part for part in (sample.prompt, sample.defect) if part] + facts)


def _card(place: int, sample: Sample, address: str) -> str:
    small = base64.b64encode(thumbnail_webp(read_image(sample.image))).decode()
    return (
        f'<figure tabindex="{0 if place == 0 else -1}" data-whole="{escape(address)}">'
        f'<img alt="image {place + 1}" decoding="async" src="data:image/webp;base64,{small}">'
        f"<figcaption>{escape(caption(sample))}</figcaption></figure>"
    )


def _name(sample: Sample, folder: Path) -> str:
    return quote(sample.image.relative_to(folder).as_posix())


def _part(name: str) -> str:
    return files("inandout.review").joinpath("page", name).read_text(encoding="utf-8")

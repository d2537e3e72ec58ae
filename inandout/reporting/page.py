"""A report as one HTML page without other files, and as Markdown."""

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from inandout.data.images import ImageArray


class Section(NamedTuple):
    """A heading, Markdown text, and images."""

    title: str
    text: str
    """Paragraphs, tables, lists of one level and code blocks."""
    images: tuple[tuple[str, Figure | ImageArray], ...] = ()
    """Pairs of caption and image."""


def markdown_page(title: str, sections: Sequence[Section]) -> str:
    """Return the sections as Markdown, without images."""
    parts = [f"# {title}", *(f"## {section.title}\n\n{section.text}" for section in sections if section.text)]
    return "\n\n".join(parts) + "\n"


def html_page(title: str, sections: Sequence[Section]) -> str:
    """Return the sections as an HTML page that contains its images."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        body += [f"<h2>{html.escape(section.title)}</h2>", *_blocks(section.text)]
        body += [_figure(caption, image) for caption, image in section.images]
    return _PAGE.format(title=html.escape(title), body="\n".join(body))


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }}
td, th {{ padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }}
img {{ max-width: 100%; }}
figure {{ margin: 1rem 0; }}
figcaption {{ color: #555; }}
pre {{ background: #f4f4f4; padding: .7rem; overflow-x: auto; }}
</style>
{body}
</html>
"""


def _blocks(text: str) -> Iterator[str]:
    """Yield the HTML of blocks that blank lines separate."""
    for block in re.split(r"\n\n+", text.strip()):
        lines = block.splitlines()
        if lines and lines[0].startswith("```"):
            yield f"<pre>{html.escape(chr(10).join(lines[1:-1]))}</pre>"
            continue
        for kind, group in groupby(lines, lambda line: line[:2] if line[:2] in ("| ", "- ") else ""):
            yield _block(kind, list(group))


def _block(kind: str, lines: list[str]) -> str:
    if kind == "- ":
        return f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in lines)}</ul>"
    if kind == "| ":
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return f"<table>{_row(head, 'th')}{''.join(_row(row, 'td') for row in rows)}</table>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_inline(cell)}</{tag}>' for cell in cells)}</tr>"


def _inline(text: str) -> str:
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text, quote=False))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", escaped)


def _figure(caption: str, image: Figure | ImageArray) -> str:
    content = io.BytesIO()
    if isinstance(image, Figure):
        image.savefig(content, format="png", dpi=110)
    else:
        Image.fromarray(image).save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'

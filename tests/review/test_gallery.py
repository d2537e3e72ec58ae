from html.parser import HTMLParser
from pathlib import Path

import pytest

from inandout.review import gallery
from inandout.review.gallery import caption, write_gallery
from tests.review.sessions import ODD, write_pool


class ParsedPage(HTMLParser):
    """Captions as a browser shows them, addresses and tags."""

    def __init__(self, text: str):
        super().__init__()
        self.captions: list[str] = []
        self.wholes: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [str(values[name]) for name in ("src", "href") if name in values]
        if tag == "figure":
            self.wholes.append(str(values["data-whole"]))
        if tag == "figcaption":
            self._inside = True
            self.captions.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside &= tag != "figcaption"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.captions[-1] += data


def write_and_parse(folder: Path) -> ParsedPage:
    pool = write_pool(folder / "pool", 6)
    write_gallery(folder / "index.html", "a </title><script>bad()</script>", folder / "pool", pool, "../pool")
    return ParsedPage((folder / "index.html").read_text())


def test_unusual_prompts_are_shown_as_plain_text(tmp_path: Path) -> None:
    page = write_and_parse(tmp_path)
    assert [text.split(" · ")[0] for text in page.captions] == ODD
    assert page.tags.count("script") == 1, "the script of the gallery"
    assert "b" not in page.tags


def test_full_size_images_are_linked_and_thumbnails_embedded(tmp_path: Path) -> None:
    page = write_and_parse(tmp_path)
    assert page.wholes == [f"../pool/{number:06d}.png" for number in range(6)]
    assert all((tmp_path / "pool" / whole).exists() for whole in page.wholes)
    embedded = [address for address in page.addresses if address]
    assert len(embedded) == 6
    assert all(address.startswith("data:image/webp;base64,") for address in embedded)


def test_special_characters_in_file_names_are_escaped(tmp_path: Path) -> None:
    (row,) = write_pool(tmp_path / "pool", 1)
    odd = row.image.rename(row.image.with_name("a #1?%\"'<ü>.png"))
    write_gallery(tmp_path / "index.html", "t", tmp_path / "pool", [row.with_(image=odd)], "../pool")
    assert ParsedPage((tmp_path / "index.html").read_text()).wholes == ["../pool/a%20%231%3F%25%22%27%3C%C3%BC%3E.png"]


def test_a_large_pool_is_shown_in_part_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "MAX_IMAGES", 4)
    page = write_and_parse(tmp_path)
    assert len(page.captions) == 4
    assert "the first 4 of 6 images" in (tmp_path / "index.html").read_text()


def test_template_syntax_in_a_prompt_is_not_expanded(tmp_path: Path) -> None:
    (row,) = write_pool(tmp_path / "pool", 1)
    write_gallery(tmp_path / "index.html", "t", tmp_path / "pool", [row.with_(prompt="{{script}}")], "../pool")
    assert ParsedPage((tmp_path / "index.html").read_text()).captions[0].startswith("{{script}} · ddpm")


def test_a_caption_lists_the_known_facts(tmp_path: Path) -> None:
    (row,) = write_pool(tmp_path / "pool", 1)
    assert caption(row) == "background scratched · ddpm · seed 0 · alpha 0.6"
    assert caption(row.with_(prompt="", alpha=None, seed=None, origin="real")) == "real"

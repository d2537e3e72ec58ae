import csv
import os
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from inandout.data.manifest import Sample, digest, fingerprint, read_manifest, write_manifest
from inandout.errors import InputError


def row(path: Path, content: bytes = b"x", **fields: object) -> Sample:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Sample(image=path, **{"label": 0, **fields})


def manifest(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "prompt",
    ['a "sks" crack, deep', "two\nlines", "two\r\nlines", "only\rreturn", "ü 🔥 <script>", "=1+1", "x" * 300],
    ids=["quotes", "newline", "windows newline", "return", "emoji", "formula", "300 characters"],
)
def test_any_prompt_survives_a_round_trip(tmp_path: Path, prompt: str) -> None:
    sample = Sample(
        image=tmp_path / "ü b.png",
        mask=tmp_path / "m/1.png",
        label=1,
        defect="crack",
        split="train",
        group="7",
        origin="ddpm",
        seed=0,
        prompt=prompt,
        sources=("aa", "bb"),
        run="r1",
        review="keep",
    )
    write_manifest([sample], tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv") == [sample]


def test_a_manifest_can_be_moved_with_its_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_manifest([Sample(image=tmp_path / "a/p/1.png", mask=Path("/far/m.png"), label=0)], tmp_path / "a/m.csv")
    (tmp_path / "a").rename(tmp_path / "b")
    (sample,) = read_manifest(tmp_path / "b/m.csv")
    assert sample.image == tmp_path / "b/p/1.png"
    assert sample.mask == Path("/far/m.png")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert len(read_manifest(manifest(tmp_path, "\ufeffimage,label\n1.png,0\n"))) == 1


def test_an_image_listed_twice_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3: 1\.png is listed twice"):
        read_manifest(manifest(tmp_path, "image,label\n1.png,0\n1.png,1\n"))


@pytest.mark.parametrize("value", ["2", "-1", "", "good", "0.5", "nan"])
def test_an_invalid_label_is_named_with_its_line(tmp_path: Path, value: str) -> None:
    with pytest.raises(InputError, match=f"line 3: label = {value!r}"):
        read_manifest(manifest(tmp_path, f"image,label\n1.png,0\n2.png,{value}\n"))


def test_invalid_columns_raise_an_error_with_the_allowed_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"required are 'image' and 'label'.*'prompt'"):
        read_manifest(manifest(tmp_path, "path,label\n1.png,0\n"))
    with pytest.raises(InputError, match=r"'colour'.*'defect'"):
        read_manifest(manifest(tmp_path, "image,label,colour\n1.png,0,red\n"))


@pytest.mark.parametrize(("line", "cells"), [("1.png,0", 2), ("1.png,0,a,more", 4), ("1.png,0,a,b,c", 5)])
def test_a_row_with_too_few_or_too_many_cells_raises_an_error(tmp_path: Path, line: str, cells: int) -> None:
    with pytest.raises(InputError, match=f"line 3: the row has {cells} cells, the header has 3"):
        read_manifest(manifest(tmp_path, f"image,label,prompt\n0.png,0,\n{line}\n"))


@pytest.mark.parametrize("text", ["", "image,label\n"])
def test_a_manifest_without_rows_raises_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError):
        read_manifest(manifest(tmp_path, text))


def test_a_field_has_any_length(tmp_path: Path) -> None:
    sources = tuple(f"{number:032x}" for number in range(6000))
    sample = Sample(image=tmp_path / "1.png", label=1, prompt="x" * 200_000, sources=sources)
    write_manifest([sample], tmp_path / "m.csv")
    assert read_manifest(tmp_path / "m.csv") == [sample]


HEADER, ROWS = ["image", "label", "mask"], [["good/1.png", "0", ""], ["defect/2.png", "1", "mask/2.png"]]


def table(rows: list[list[str]], separator: str = ",", end: str = "\n") -> str:
    return "".join(separator.join(row) + end for row in rows)


def changed(number: int, column: int, *values: str) -> list[list[str]]:
    """Return header and rows with other values in a column of the rows."""
    rows = [list(row) for row in ROWS]
    for row, value in zip(rows, values, strict=True):
        row[column] = value
    return [HEADER, *rows][: number + 1]


SPELLINGS: dict[str, bytes] = {
    "comma": table([HEADER, *ROWS]).encode(),
    "Excel": table([HEADER, *ROWS], ";", "\r\n").encode("utf-8-sig"),
    "tab": table([HEADER, *ROWS], "\t").encode(),
    "UTF-16": table([HEADER, *ROWS], "\t", "\r\n").encode("utf-16"),
    "stated separator": b"sep=;\r\n" + table([HEADER, *ROWS], ";", "\r\n").encode(),
    "old macOS line ends": table([HEADER, *ROWS], ",", "\r").encode(),
    "header in capitals": table([["Image", "LABEL", "Mask "], *ROWS]).encode(),
    "blanks": table([[" image", " label", " mask"], *[[f" {cell} " for cell in row] for row in ROWS]]).encode(),
    "empty rows": (table([HEADER, *ROWS]) + ",,\n\n , ,\n").encode(),
    "index of pandas": table([["", *HEADER], *[[str(i), *row] for i, row in enumerate(ROWS)]]).encode(),
    "nan": table(changed(2, 2, "nan", "mask/2.png")).encode(),
    "None": table(changed(2, 2, "None", "mask/2.png")).encode(),
    "booleans": table(changed(2, 1, "False", "True")).encode(),
    "floats": table(changed(2, 1, "0.0", "1.0")).encode(),
    "Windows": table([HEADER, *[[cell.replace("/", "\\") for cell in row] for row in ROWS]]).encode(),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_manifests_of_other_programs_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.csv").write_bytes(SPELLINGS[name])
    assert read_manifest(tmp_path / "m.csv") == [
        Sample(image=tmp_path / "good/1.png", label=0),
        Sample(image=tmp_path / "defect/2.png", label=1, mask=tmp_path / "mask/2.png"),
    ]


@pytest.mark.parametrize(("value", "split"), [("Train", "train"), ("validation", "val"), ("TEST", "test"), ("nan", "")])
def test_a_split_has_several_spellings(tmp_path: Path, value: str, split: str) -> None:
    (sample,) = read_manifest(manifest(tmp_path, f"image,label,split\n1.png,0,{value}\n"))
    assert sample.split == split


@pytest.mark.parametrize(("listed", "stored"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_file_name_in_another_unicode_form_is_found(
    tmp_path: Path, listed: Literal["NFC", "NFD"], stored: Literal["NFC", "NFD"]
) -> None:
    name = "Prüfung/Kratzer ö.png"
    image = row(tmp_path / unicodedata.normalize(stored, name)).image
    (sample,) = read_manifest(manifest(tmp_path, f"image,label\n{unicodedata.normalize(listed, name)},0\n"))
    assert sample.image.exists()
    assert sample.image == image


@pytest.mark.parametrize(
    ("header", "repeated"), [("image,label,label", "label"), ("image,label,Image", "image"), ("image,label,a,A", "a")]
)
def test_a_repeated_column_raises_an_error(tmp_path: Path, header: str, repeated: str) -> None:
    cells = ",".join(["1.png", "0", "0", "0"][: header.count(",") + 1])
    with pytest.raises(InputError, match=rf"the columns \['{repeated}'\] appear more than once"):
        read_manifest(manifest(tmp_path, f"{header}\n{cells}\n"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (r"D:\parts\1.png", "a path of Windows does not exist here; give paths relative"),
        (r"\\server\parts\1.png", "a path of Windows does not exist here; give paths relative"),
        ("https://example.com/1.png", "addresses are not read; download"),
        ("", "no file is named"),
        ("x" * 300 + ".png", "not a file name"),
    ],
)
def test_a_path_that_cannot_exist_raises_an_error_with_the_fix(tmp_path: Path, value: str, message: str) -> None:
    with pytest.raises(InputError, match=f"line 3: image = .*{message}"):
        read_manifest(manifest(tmp_path, f"image,label\n1.png,0\n{value},0\n"))


def test_all_invalid_rows_are_reported_in_one_error(tmp_path: Path) -> None:
    rows = "".join(f"{number}.png,good\n" for number in range(12))
    with pytest.raises(InputError, match=r"line 2: label = 'good'.*give 0 for.*line 6: .*; and 7 more rows$"):
        read_manifest(manifest(tmp_path, f"image,label\n{rows}"))


def test_a_binary_file_raises_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"\x89PNG\xff\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_manifest(path)


def test_the_fingerprint_depends_on_content_and_rows_but_not_on_location(tmp_path: Path) -> None:
    here = [row(tmp_path / "a/1.png", b"one"), row(tmp_path / "a/2.png", b"two", label=1)]
    there = [row(tmp_path / "b/x.png", b"one"), row(tmp_path / "b/y.png", b"two", label=1, run="later")]
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint([here[0].with_(label=1), here[1]]) != fingerprint(here)
    (tmp_path / "b/x.png").write_bytes(b"edited")
    assert fingerprint(here) != fingerprint(there)


def test_the_fingerprint_depends_on_the_content_of_masks(tmp_path: Path) -> None:
    sample = row(tmp_path / "1.png").with_(mask=row(tmp_path / "m.png", b"m").image)
    before = fingerprint([sample])
    (tmp_path / "m.png").write_bytes(b"n")
    assert fingerprint([sample]) != before


def test_the_digest_depends_on_content_only(tmp_path: Path) -> None:
    one, two = row(tmp_path / "1.png").image, row(tmp_path / "2.png").image
    assert digest(one) == digest(two)
    assert len(digest(one)) == 32


def test_a_failed_write_keeps_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    sample = Sample(image=tmp_path / "1.png", label=0)
    write_manifest([sample], path)
    with pytest.raises(AttributeError):
        write_manifest([sample, None], path)  # type: ignore[list-item]
    assert [file.name for file in tmp_path.iterdir()] == ["m.csv"]
    assert read_manifest(path) == [sample]
    with path.open() as file:
        assert len(list(csv.reader(file))) == 2


def test_an_unwritable_path_raises_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    sample = Sample(image=tmp_path / "1.png", label=0)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name in ("missing/m.csv", "file/m.csv", "folder"):
        with pytest.raises(InputError, match=f"{name}: cannot be written"):
            write_manifest([sample], tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_only_regular_files_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe", "missing", "x" * 300, "a\0b"):
        with pytest.raises(InputError, match=r"not a regular file|cannot be read"):
            digest(tmp_path / name)


def test_a_spreadsheet_runs_no_cell_and_every_text_comes_back(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "'=1", "''", "it's", "'a", "\t=1"]
    names = [f"{text}{number}.png".strip() for number, text in enumerate(texts)]
    for name in names:
        (tmp_path / name).touch()
    rows = [
        Sample(image=tmp_path / name, label=1, defect=text.strip(), group=text.strip(), prompt=text)
        for name, text in zip(names, texts, strict=True)
    ]
    write_manifest(rows, tmp_path / "all.csv")
    cells = [cell for row in csv.reader((tmp_path / "all.csv").read_text().splitlines()) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert read_manifest(tmp_path / "all.csv") == rows

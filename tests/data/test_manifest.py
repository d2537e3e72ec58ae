import csv
from pathlib import Path

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


def test_an_oversized_field_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="after line 1: field larger"):
        read_manifest(manifest(tmp_path, f"image,label,prompt\n1.png,0,{'x' * 200_000}\n"))


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

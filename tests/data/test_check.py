import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from inandout.data import check as checking
from inandout.data.check import Problem, check, class_problems, describe, without_problems
from inandout.data.duplicates import group_near_duplicates
from inandout.data.images import ImageArray, read_image, write_image
from inandout.data.manifest import Sample, Split, read_manifest

TILES = Path(os.environ.get("INANDOUT_TILES", Path(__file__).parents[3] / "shared" / "datasets" / "magnetic_tile"))
SIZE = (64, 48)


def surface(seed: int, exposure: float = 1.0) -> ImageArray:
    """One tile under one exposure."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SIZE), 1)
    grey = (100 + 25 * noise / noise.std()) * exposure
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def healthy(folder: Path) -> list[Sample]:
    """Two images of each class in each split, with masks."""
    samples = []
    splits: tuple[Split, ...] = ("train", "train", "train", "train", "test", "test", "test", "test")
    for i, split in enumerate(splits):
        image, mask, label = folder / f"{i}.png", folder / f"{i}_mask.png", i % 2
        marked = np.zeros(SIZE, dtype=np.bool_)
        marked[10:15, 10:15] = label
        write_image(image, surface(i))
        write_image(mask, marked)
        samples.append(Sample(image=image, mask=mask, label=label, split=split))
    return samples


def found(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.path.name, problem.what) for problem in problems]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_a_healthy_data_set_has_no_problem(tmp_path: Path) -> None:
    assert check(healthy(tmp_path)) == []


def damaged_files() -> dict[str, tuple[bytes, str]]:
    noise = Image.fromarray(surface(99))
    png = encoded(noise, "PNG")
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", b""), (b"IEND", b"")]
    huge = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    frames = encoded(noise, "TIFF", save_all=True, append_images=[noise])
    return {
        "empty": (b"", "empty file (0 bytes)"),
        "html": (b"<!DOCTYPE html>\n<html>404</html>", "an HTML page, not an image"),
        "text": (b"hello, world", "text, not an image"),
        "half a jpeg": (encoded(noise, "JPEG")[:900], "cannot be decoded"),
        "bad checksum": (png[:-20] + bytes([png[-20] ^ 1]) + png[-19:], "cannot be decoded"),
        "float": (encoded(Image.new("F", (40, 40)), "TIFF"), "pixels are stored as 'F'"),
        "frames": (frames, "holds several frames"),
        "huge": (b"\x89PNG\r\n\x1a\n" + huge, "more than the limit of 50,000,000"),
        "narrow": (encoded(Image.new("L", (1, 400)), "PNG"), "1x400 is under 32 px a side"),
    }


@pytest.mark.parametrize("name", damaged_files())
def test_a_image_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    samples = [*healthy(tmp_path), Sample(image=tmp_path / "bad.png", label=0, split="train")]
    content, what = damaged_files()[name]
    samples[-1].image.write_bytes(content)
    (problem,) = check(samples)
    assert problem.path == samples[-1].image
    assert what in problem.what
    assert problem.fix
    assert str(tmp_path) not in problem.what


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    for i, (content, _) in enumerate(damaged_files().values()):
        samples.append(Sample(image=tmp_path / f"bad{i}.png", label=0, split="train"))
        samples[-1].image.write_bytes(content)
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    samples += [Sample(image=loop, label=0, split="train"), Sample(image=tmp_path / "gone.png", label=0, split="train")]
    problems = check(samples)
    assert [problem.path for problem in problems] == [sample.image for sample in samples[8:]]
    assert ("gone.png", "no such file") in found(problems)


def test_masks_are_checked_against_image_and_label(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    masks = [sample.mask for sample in samples]
    samples[0] = samples[0].with_(mask=masks[1])
    samples[3] = samples[3].with_(mask=masks[2])
    write_image(tmp_path / "small.png", np.ones((64, 40), dtype=np.bool_))
    samples[5] = samples[5].with_(mask=tmp_path / "small.png")
    samples[7] = samples[7].with_(mask=tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("x")
    samples[6] = samples[6].with_(mask=tmp_path / "text.png")
    assert found(check(samples)) == [
        ("1_mask.png", "the label says no defect, but the mask marks one"),
        ("2_mask.png", "the label says defect, but the mask is all black"),
        ("small.png", "the mask is 40x64, its image 5.png is 48x64"),
        ("text.png", "text, not an image"),
        ("gone.png", "no such file"),
    ]


def classes(problems: list[Problem]) -> list[str]:
    return [problem.what for problem in problems]


def test_a_class_without_images_or_with_one_is_named(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    assert check([samples[0], samples[2], *samples[4:]]) == []  # no positives in training: zero-shot
    assert classes(check(samples[1:4:2] + samples[4:])) == ["the train split has no image without a defect"]
    assert classes(check(samples[:4] + samples[4::2])) == ["the test split has no image with a defect"]
    assert classes(check(samples[:4] + samples[5:])) == ["the test split has one image without a defect"]
    assert len(check(samples[:4])) == 2
    assert len(check([])) == 3


def test_one_positive_to_train_on_is_a_remark(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    (problem,) = check(samples[:3] + samples[4:])
    assert problem.kind == "remark"
    assert problem.what == "the train split has one image with a defect: one-shot; few conclusions"


@pytest.mark.parametrize(("label", "missing"), [(0, "with a defect"), (1, "without a defect")])
def test_a_validation_part_of_one_class_is_a_remark(label: int, missing: str) -> None:
    rows: list[tuple[Split, int]] = [("train", 0), ("train", 1), ("test", 0), ("test", 1)] * 2
    samples = [Sample(image=Path(f"/{i}.png"), label=its, split=split) for i, (split, its) in enumerate(rows)]
    one, other = (Sample(image=Path(f"/v{its}.png"), label=its, split="val") for its in (label, 1 - label))
    (problem,) = class_problems([*samples, one])  # the files are not needed
    assert problem.kind == "remark"
    assert problem.what.startswith(f"the val split has no image {missing}")
    assert list(class_problems([*samples, one, other])) == []


def test_an_undivided_data_set_needs_two_of_each_class(tmp_path: Path) -> None:
    samples = [sample.with_(split="") for sample in healthy(tmp_path)]
    assert check(samples) == []
    assert classes(check(samples[:2] + samples[2::2])) == ["the data set has one image with a defect"]


def test_the_same_content_listed_twice_is_found(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    (tmp_path / "copy.png").write_bytes(samples[0].image.read_bytes())
    within = check([*samples, samples[0].with_(image=tmp_path / "copy.png", mask=None)])
    assert found(within) == [("copy.png", f"the same content as {samples[0].image}")]
    across = check([*samples, samples[0].with_(image=tmp_path / "copy.png", mask=None, split="test")])
    kept = f"the same content as {tmp_path / 'copy.png'} (one in train, one in test)"
    assert found(across) == [("0.png", kept)], "the training image is the one to go"


def test_a_flipped_and_re_encoded_copy_of_a_test_image_in_train_is_found(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    Image.fromarray(surface(4)[:, ::-1]).save(tmp_path / "leak.jpg", quality=60)
    leak = Sample(image=tmp_path / "leak.jpg", label=0, split="train")
    expected = f"shows the same thing as {samples[4].image} (one in train, one in test)"
    assert found(check([*samples, leak])) == [("leak.jpg", expected)]
    assert check([*samples, leak.with_(split="test")]) == []


def test_a_group_in_two_splits_is_named_once(tmp_path: Path) -> None:
    samples = [sample.with_(group=f"g{i % 3}") for i, sample in enumerate(healthy(tmp_path))]
    (*_, last) = problems = check(samples)
    assert len(problems) == 3
    assert "is in test, and in train" in last.what


def test_one_tile_under_six_exposures_leaks_and_grouping_keeps_it_together(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    for i, exposure in enumerate((0.5, 0.7, 0.9, 1.1, 1.3, 1.5)):
        path = tmp_path / f"tile_{i}.png"
        write_image(path, surface(50, exposure))
        samples.append(Sample(image=path, label=0, split="train" if i < 4 else "test"))
    problems = check(samples)
    assert {problem.path.name for problem in problems} == {f"tile_{i}.png" for i in range(4)}
    assert all("shows the same thing as" in problem.what and problem.kind == "leak" for problem in problems)
    grouped = group_near_duplicates(samples)
    assert len({sample.group for sample in grouped[-6:]}) == 1
    assert grouped[-1].group
    assert any("group" in problem.what and "is in" in problem.what for problem in check(grouped))
    together = [sample.with_(split="test") if sample.group else sample for sample in grouped]
    assert check(together) == []


def test_what_can_be_used_is_left_when_leaks_and_their_groups_and_errors_go(tmp_path: Path) -> None:
    samples = [sample.with_(group=f"part {i}") for i, sample in enumerate(healthy(tmp_path))]
    write_image(tmp_path / "leak.png", surface(4, 1.2))
    write_image(tmp_path / "beside.png", surface(99))
    write_image(tmp_path / "fine.png", surface(98))
    (tmp_path / "broken.png").write_bytes(b"")
    added = [
        Sample(image=tmp_path / f"{name}.png", label=0, split="train", group=group)
        for name, group in (("leak", "tile"), ("beside", "tile"), ("fine", "other"), ("broken", "other"))
    ]
    everything = [*samples, *added]
    left = without_problems(everything, check(everything))
    assert left == [*samples, added[2]]
    assert check(left) == []


def test_a_black_mask_of_a_defect_is_a_remark_that_costs_nothing(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    write_image(tmp_path / "black.png", np.zeros(SIZE, bool))
    positive = next(i for i, sample in enumerate(samples) if sample.label == 1)
    samples[positive] = samples[positive].with_(mask=tmp_path / "black.png")
    (problem,) = check(samples)
    assert problem.kind == "remark"
    assert without_problems(samples, [problem]) == samples


def test_each_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = healthy(tmp_path)
    decoded: list[Path] = []
    monkeypatch.setattr(checking, "read_image", lambda path, limit: (decoded.append(path), read_image(path, limit))[1])
    check(samples)
    assert sorted(decoded) == sorted(sample.image for sample in samples)


def test_the_limit_of_pixels_is_named(tmp_path: Path) -> None:
    samples = healthy(tmp_path)
    assert all("limit of 100" in problem.what for problem in check(samples, max_pixels=100))


def test_a_report_is_one_line_a_problem_whatever_the_file_is_called() -> None:
    problems = [Problem(Path("a\n\x1b[31m\udcff ü 🔥.png"), "is bad", "mend it"), Problem(Path("b"), "x", "y")]
    text = describe(problems)
    assert text.splitlines() == ["a\\n\\x1b[31m\\udcff ü 🔥.png: is bad; mend it", "b: x; y"]
    text.encode()
    assert describe(problems, at_most=1).splitlines()[1] == "... and 1 more"
    assert describe([]) == ""


@pytest.mark.skipif(not TILES.is_dir(), reason="needs the magnetic tiles (INANDOUT_TILES)")
def test_the_leak_in_the_split_of_the_real_tiles_is_found() -> None:
    tile = ("58", "65")  # two groups, one tile, in test and train
    samples = [sample for sample in read_manifest(TILES / "split.csv") if sample.group in tile]
    problems = check(samples)
    assert any("shows the same thing as" in problem.what for problem in problems)

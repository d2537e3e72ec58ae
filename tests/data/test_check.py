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
    """Draw a tile under one exposure."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SIZE), 1)
    grey = (100 + 25 * noise / noise.std()) * exposure
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def valid_dataset(folder: Path) -> list[Sample]:
    """Write two images of each class per split, with masks."""
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


def listed(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(problem.path.name, problem.what) for problem in problems]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_a_valid_dataset_has_no_problems(tmp_path: Path) -> None:
    assert check(valid_dataset(tmp_path)) == []


def invalid_files() -> dict[str, tuple[bytes, str]]:
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
        "float": (encoded(Image.new("F", (40, 40)), "TIFF"), "the pixel format 'F' has no defined range"),
        "frames": (frames, "has several frames"),
        "huge": (b"\x89PNG\r\n\x1a\n" + huge, "more than the limit of 50,000,000"),
        "narrow": (encoded(Image.new("L", (1, 400)), "PNG"), "the size is 1x400, the minimum is 32x32"),
    }


@pytest.mark.parametrize("name", invalid_files())
def test_an_invalid_image_is_reported(tmp_path: Path, name: str) -> None:
    samples = [*valid_dataset(tmp_path), Sample(image=tmp_path / "bad.png", label=0, split="train")]
    content, what = invalid_files()[name]
    samples[-1].image.write_bytes(content)
    (problem,) = check(samples)
    assert problem.path == samples[-1].image
    assert what in problem.what
    assert problem.fix
    assert str(tmp_path) not in problem.what


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    for i, (content, _) in enumerate(invalid_files().values()):
        samples.append(Sample(image=tmp_path / f"bad{i}.png", label=0, split="train"))
        samples[-1].image.write_bytes(content)
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    samples += [Sample(image=loop, label=0, split="train"), Sample(image=tmp_path / "gone.png", label=0, split="train")]
    problems = check(samples)
    assert [problem.path for problem in problems] == [sample.image for sample in samples[8:]]
    assert ("gone.png", "no such file") in listed(problems)


def test_masks_are_checked_against_image_and_label(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    masks = [sample.mask for sample in samples]
    samples[0] = samples[0].with_(mask=masks[1])
    samples[3] = samples[3].with_(mask=masks[2])
    write_image(tmp_path / "small.png", np.ones((64, 40), dtype=np.bool_))
    samples[5] = samples[5].with_(mask=tmp_path / "small.png")
    samples[7] = samples[7].with_(mask=tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("x")
    samples[6] = samples[6].with_(mask=tmp_path / "text.png")
    assert listed(check(samples)) == [
        ("1_mask.png", "the label is 0 (no defect), but the mask marks a defect"),
        ("2_mask.png", "the label is 1 (defect), but the mask is empty"),
        ("small.png", "the mask is 40x64, its image 5.png is 48x64"),
        ("text.png", "text, not an image"),
        ("gone.png", "no such file"),
    ]


def messages(problems: list[Problem]) -> list[str]:
    return [problem.what for problem in problems]


def test_a_class_with_fewer_than_two_images_is_reported(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    assert check([samples[0], samples[2], *samples[4:]]) == []  # no positives in training: zero-shot
    minimum = "the minimum is two"
    assert messages(check(samples[1:4:2] + samples[4:])) == [
        f"the train split has no image without a defect, {minimum}"
    ]
    assert messages(check(samples[:4] + samples[4::2])) == [f"the test split has no image with a defect, {minimum}"]
    assert messages(check(samples[:4] + samples[5:])) == [f"the test split has one image without a defect, {minimum}"]
    assert len(check(samples[:4])) == 2
    assert len(check([])) == 3


def test_a_single_training_positive_is_a_remark(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    (problem,) = check(samples[:3] + samples[4:])
    assert problem.kind == "remark"
    assert problem.what == "the train split has one image with a defect (one-shot), so results are unreliable"


@pytest.mark.parametrize(("label", "missing"), [(0, "with a defect"), (1, "without a defect")])
def test_a_validation_split_with_one_class_is_a_remark(label: int, missing: str) -> None:
    rows: list[tuple[Split, int]] = [("train", 0), ("train", 1), ("test", 0), ("test", 1)] * 2
    samples = [Sample(image=Path(f"/{i}.png"), label=value, split=split) for i, (split, value) in enumerate(rows)]
    first, second = (Sample(image=Path(f"/v{value}.png"), label=value, split="val") for value in (label, 1 - label))
    (problem,) = class_problems([*samples, first])  # the files do not exist
    assert problem.kind == "remark"
    assert problem.what.startswith(f"the val split has no image {missing}")
    assert list(class_problems([*samples, first, second])) == []


def test_a_dataset_without_a_split_needs_two_images_of_each_class(tmp_path: Path) -> None:
    samples = [sample.with_(split="") for sample in valid_dataset(tmp_path)]
    assert check(samples) == []
    expected = ["the dataset has one image with a defect, the minimum is two"]
    assert messages(check(samples[:2] + samples[2::2])) == expected


def test_duplicate_content_is_reported(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    (tmp_path / "copy.png").write_bytes(samples[0].image.read_bytes())
    same_split = check([*samples, samples[0].with_(image=tmp_path / "copy.png", mask=None)])
    assert listed(same_split) == [("copy.png", f"the same content as {samples[0].image}")]
    two_splits = check([*samples, samples[0].with_(image=tmp_path / "copy.png", mask=None, split="test")])
    message = f"the same content as {tmp_path / 'copy.png'} (in train and in test)"
    assert listed(two_splits) == [("0.png", message)], "the training image is reported"


def test_a_flipped_and_re_encoded_copy_of_a_test_image_in_train_is_reported(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    Image.fromarray(surface(4)[:, ::-1]).save(tmp_path / "leak.jpg", quality=60)
    leak = Sample(image=tmp_path / "leak.jpg", label=0, split="train")
    expected = f"near-duplicate of {samples[4].image} (in train and in test)"
    assert listed(check([*samples, leak])) == [("leak.jpg", expected)]
    assert check([*samples, leak.with_(split="test")]) == []


def test_a_group_in_two_splits_is_reported_once(tmp_path: Path) -> None:
    samples = [sample.with_(group=f"g{i % 3}") for i, sample in enumerate(valid_dataset(tmp_path))]
    (*_, last) = problems = check(samples)
    assert len(problems) == 3
    assert "is in test, but" in last.what
    assert last.what.endswith("of the same group is in train")


def test_exposures_of_one_tile_leak_and_grouping_keeps_them_together(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    for i, exposure in enumerate((0.5, 0.7, 0.9, 1.1, 1.3, 1.5)):
        path = tmp_path / f"tile_{i}.png"
        write_image(path, surface(50, exposure))
        samples.append(Sample(image=path, label=0, split="train" if i < 4 else "test"))
    problems = check(samples)
    assert {problem.path.name for problem in problems} == {f"tile_{i}.png" for i in range(4)}
    assert all("near-duplicate of" in problem.what and problem.kind == "leak" for problem in problems)
    grouped = group_near_duplicates(samples)
    assert len({sample.group for sample in grouped[-6:]}) == 1
    assert grouped[-1].group
    assert any("group" in problem.what and "is in" in problem.what for problem in check(grouped))
    together = [sample.with_(split="test") if sample.group else sample for sample in grouped]
    assert check(together) == []


def test_without_problems_drops_errors_and_leaking_groups(tmp_path: Path) -> None:
    samples = [sample.with_(group=f"part {i}") for i, sample in enumerate(valid_dataset(tmp_path))]
    write_image(tmp_path / "leak.png", surface(4, 1.2))
    write_image(tmp_path / "beside.png", surface(99))
    write_image(tmp_path / "fine.png", surface(98))
    (tmp_path / "broken.png").write_bytes(b"")
    added = [
        Sample(image=tmp_path / f"{name}.png", label=0, split="train", group=group)
        for name, group in (("leak", "tile"), ("beside", "tile"), ("fine", "other"), ("broken", "other"))
    ]
    all_samples = [*samples, *added]
    usable = without_problems(all_samples, check(all_samples))
    assert usable == [*samples, added[2]]
    assert check(usable) == []


def test_an_empty_mask_of_a_defect_is_a_remark_and_the_sample_stays(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    write_image(tmp_path / "black.png", np.zeros(SIZE, bool))
    positive = next(i for i, sample in enumerate(samples) if sample.label == 1)
    samples[positive] = samples[positive].with_(mask=tmp_path / "black.png")
    (problem,) = check(samples)
    assert problem.kind == "remark"
    assert without_problems(samples, [problem]) == samples


@pytest.mark.parametrize(
    ("levels", "kind", "what"),
    [
        (np.zeros(SIZE), "error", "the image is black: it shows nothing"),
        (np.full(SIZE, 90), "error", "the image is flat: it shows nothing"),
        (
            np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 13,
            "remark",
            "the image is nearly black, its highest level is 12",
        ),
        (np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 60, "remark", "the image is dark, its highest level is 59"),
        (255 - np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 9, "remark", "most of the image is saturated"),
    ],
)
def test_images_that_show_little_are_reported(tmp_path: Path, levels: np.ndarray, kind: str, what: str) -> None:
    samples = [*valid_dataset(tmp_path), Sample(image=tmp_path / "odd.png", label=0, split="train")]
    write_image(samples[-1].image, np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2))
    (problem,) = check(samples)
    assert (problem.path.name, problem.kind) == ("odd.png", kind)
    assert what in problem.what


def test_lossy_and_inverted_masks_are_remarks(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    lossy, inverted = tmp_path / "m.jpg", tmp_path / "i.png"
    mask = np.zeros(SIZE, np.uint8)
    mask[10:30, 10:30] = 255
    Image.fromarray(mask).save(lossy, quality=60)
    write_image(inverted, np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) > 100)
    samples[1], samples[3] = samples[1].with_(mask=lossy), samples[3].with_(mask=inverted)
    problems = check(samples)
    assert [(problem.path.name, problem.kind) for problem in problems] == [("m.jpg", "remark"), ("i.png", "remark")]
    assert problems[0].what.startswith("the mask is lossy (JPEG")
    assert problems[1].what == "the mask marks 97% of the image"


def test_each_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = valid_dataset(tmp_path)
    decoded: list[Path] = []
    monkeypatch.setattr(checking, "read_image", lambda path, limit: (decoded.append(path), read_image(path, limit))[1])
    check(samples)
    assert sorted(decoded) == sorted(sample.image for sample in samples)


def test_the_pixel_limit_is_reported(tmp_path: Path) -> None:
    samples = valid_dataset(tmp_path)
    assert all("limit of 100" in problem.what for problem in check(samples, max_pixels=100))


def test_describe_gives_one_printable_line_per_problem() -> None:
    problems = [Problem(Path("a\n\x1b[31m\udcff ü 🔥.png"), "is bad", "fix it"), Problem(Path("b"), "x", "y")]
    text = describe(problems)
    assert text.splitlines() == ["a\\n\\x1b[31m\\udcff ü 🔥.png: is bad; fix it", "b: x; y"]
    text.encode()
    assert describe(problems, at_most=1).splitlines()[1] == "... and 1 more"
    assert describe([]) == ""


@pytest.mark.skipif(not TILES.is_dir(), reason="needs the magnetic tiles (INANDOUT_TILES)")
def test_the_leak_in_the_split_of_the_real_tiles_is_reported() -> None:
    tile = ("58", "65")  # two groups of the same tile, in test and train
    samples = [sample for sample in read_manifest(TILES / "split.csv") if sample.group in tile]
    problems = check(samples)
    assert any("near-duplicate of" in problem.what for problem in problems)

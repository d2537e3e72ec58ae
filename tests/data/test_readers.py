import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from inandout.data import readers
from inandout.data.check import describe
from inandout.data.images import read_mask, write_image
from inandout.data.manifest import Sample
from inandout.data.readers import read_ksdd2, scan_data
from inandout.errors import InputError

SIZE = (8, 6)


def read_data(path: Path) -> list[Sample]:
    samples, problems = scan_data(path)
    if problems:
        raise InputError(describe(problems))
    return samples


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((*SIZE, 3), 90, dtype=np.uint8))
    return path


def mask(path: Path, defect: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(SIZE, dtype=np.uint8)
    pixels[2, 3] = defect  # level 1 of 255, the darkest defect pixel
    write_image(path, pixels)
    return path


def ksdd2(folder: Path, counts: dict[str, tuple[int, int]], name: str = "1") -> Path:
    """Write the KolektorSDD2 layout; `counts` are the negatives and positives of each split."""
    for split, (negatives, positives) in counts.items():
        for i in range(negatives + positives):
            image(folder / split / f"{name}{i}.png")
            mask(folder / split / f"{name}{i}_GT.png", i >= negatives)
    return folder


def test_ksdd2_labels_come_from_masks(tmp_path: Path) -> None:
    folder = ksdd2(tmp_path / "good" / "ok", {"train": (2, 1), "test": (1, 2)})
    (folder / "surfaces.json").write_text("[]")
    samples = read_data(folder)
    assert [(sample.image.name, sample.label, sample.split) for sample in samples] == [
        ("10.png", 0, "train"),
        ("11.png", 0, "train"),
        ("12.png", 1, "train"),
        ("10.png", 0, "test"),
        ("11.png", 1, "test"),
        ("12.png", 1, "test"),
    ]
    assert samples[2].mask == folder / "train" / "12_GT.png"


def test_wrong_counts_of_the_official_ksdd2_are_reported(tmp_path: Path) -> None:
    folder = ksdd2(tmp_path, {"train": (2, 1), "test": (1, 2)})
    with pytest.raises(InputError, match=r"(?s)found 3 images, KolektorSDD2 has 2331.*has 1004"):
        read_data(folder)
    assert len(read_ksdd2(folder, official=False).samples) == 6


def test_the_copies_in_the_official_zip_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ksdd2(tmp_path, {"train": (2, 1), "test": (1, 2)})
    image(folder / "train" / "10301 (copy).png")
    mask(folder / "train" / "10301_GT (copy).png", False)
    image(folder / "train" / "copy.png")
    mask(folder / "train" / "copy_GT.png", False)
    monkeypatch.setattr(readers, "KSDD2_COUNTS", {"train": 4, "test": 3})
    with caplog.at_level(logging.WARNING):
        names = [sample.image.name for sample in read_data(folder)]
    assert names == ["10.png", "11.png", "12.png", "copy.png", "10.png", "11.png", "12.png"]
    assert "10301 (copy).png" in caplog.text


def test_all_unpaired_files_are_reported_at_once(tmp_path: Path) -> None:
    folder = ksdd2(tmp_path, {"train": (3, 1), "test": (1, 2)})
    (folder / "surfaces.json").write_text("[]")
    (folder / "train" / "10_GT.png").unlink()
    (folder / "train" / "11.png").unlink()
    (folder / "train" / "12_GT.png").write_bytes(b"")
    scan = scan_data(folder)
    assert {problem.path.name for problem in scan.problems} == {"10.png", "11_GT.png", "12_GT.png"}
    assert len(scan.samples) == 4
    assert [problem.what.split(" (")[0] for problem in scan.problems] == [
        "no mask for this image", "no image for this mask", "cannot be decoded"
    ]  # fmt: skip


def mvtec(folder: Path) -> Path:
    for name in ("train/good/0", "train/good/1", "test/good/0", "test/crack/0", "test/good_looking/0"):
        image(folder / f"{name}.png")
    mask(folder / "ground_truth" / "crack" / "0_mask.png", True)
    mask(folder / "ground_truth" / "good_looking" / "0_mask.png", True)
    return folder


def test_mvtec_labels_come_from_folders(tmp_path: Path) -> None:
    folder = mvtec(tmp_path / "goodyear" / "test" / "crack")
    samples = read_data(folder)
    assert [(sample.split, sample.label, sample.defect) for sample in samples] == [
        ("train", 0, ""),
        ("train", 0, ""),
        ("test", 0, ""),
        ("test", 1, "crack"),
        ("test", 1, "good_looking"),
    ]
    assert samples[3].mask == folder / "ground_truth" / "crack" / "0_mask.png"
    assert samples[0].mask is None


def test_unpaired_files_of_mvtec_are_reported(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    image(folder / "test" / "crack" / "1.png")
    mask(folder / "ground_truth" / "crack" / "2_mask.png", True)
    mask(folder / "ground_truth" / "gone" / "3_mask.png", True)
    image(folder / "train" / "crack" / "4.png")
    found = {problem.path.relative_to(folder).as_posix() for problem in scan_data(folder).problems}
    assert found == {"test/crack/1.png", "ground_truth/crack/2_mask.png", "ground_truth/gone/3_mask.png", "train/crack"}


def test_mvtec_without_masks_is_read(tmp_path: Path) -> None:
    for name in ("train/good/0", "test/good/0", "test/bad/0"):
        image(tmp_path / f"{name}.png")
    assert [(sample.label, sample.mask) for sample in read_data(tmp_path)] == [(0, None), (0, None), (1, None)]


def test_folders_set_label_kind_and_mask(tmp_path: Path) -> None:
    folder = tmp_path / "goodyear" / "ok" / "defect"
    for name in ("good/1", "good/2", "defect/1", "defect/scratch/3", "defect/defect/4"):
        image(folder / f"{name}.png")
    for name in ("mask/1", "mask/scratch/3"):
        mask(folder / f"{name}.png", True)
    samples = read_data(folder)
    assert [(sample.label, sample.defect, sample.split) for sample in samples] == [
        (0, "", ""),
        (0, "", ""),
        (1, "", ""),
        (1, "defect", ""),
        (1, "scratch", ""),
    ]
    assert [sample.mask and sample.mask.relative_to(folder).as_posix() for sample in samples] == [
        None,
        None,
        "mask/1.png",
        None,
        "mask/scratch/3.png",
    ]


def test_a_mask_of_no_image_or_of_two_is_reported(tmp_path: Path) -> None:
    for name in ("good/1", "defect/a/2", "defect/b/2"):
        image(tmp_path / f"{name}.png")
    mask(tmp_path / "mask" / "1.png", True)
    mask(tmp_path / "mask" / "2.png", True)
    scan = scan_data(tmp_path)
    assert [(problem.path.name, problem.what) for problem in scan.problems] == [
        ("1.png", "mask matches no images"),
        ("2.png", "mask matches 2 images"),
    ]
    assert len(scan.samples) == 1


def test_hidden_files_other_suffixes_and_link_loops_are_tolerated(tmp_path: Path) -> None:
    image(tmp_path / "good" / "2.png")
    image(tmp_path / "good" / "1.png")
    image(tmp_path / "defect" / "1.png")
    (tmp_path / "good" / ".hidden.png").write_bytes(b"")
    (tmp_path / "good" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "defect" / "up").symlink_to(tmp_path)
    (tmp_path / "defect" / "self").symlink_to(tmp_path / "defect" / "self")
    loop = tmp_path / "good" / "loop.png"
    loop.symlink_to(loop)
    names = [sample.image.name for sample in read_data(tmp_path)]
    assert names == ["1.png", "2.png", "loop.png", "1.png"]  # `check` reports the loop


def test_a_manifest_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,label\ngood/1.png,1\n")
    (sample,) = read_data(tmp_path / "m.csv")
    assert (sample.label, sample.image) == (1, tmp_path / "good" / "1.png")


@pytest.mark.parametrize("name", ["", "nowhere", "file.txt"])
def test_an_unknown_layout_raises_an_error_with_the_layouts(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match=r"(?s)KolektorSDD2 .*MVTec-AD .*good/ and defect/"):
        read_data(tmp_path / name)


@pytest.mark.parametrize("folders", [("good", "defect"), ("train", "test"), ("train/good", "test")])
def test_a_layout_without_images_raises_an_error(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(InputError, match="no usable image"):
        read_data(tmp_path)


def test_paths_are_absolute_for_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "good" / "1.png")
    image(tmp_path / "defect" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert [sample.image for sample in read_data(Path())] == [tmp_path / "good/1.png", tmp_path / "defect/1.png"]


def problem_paths(folder: Path) -> set[str]:
    """Return the relative paths of all problems of a scan."""
    return {problem.path.relative_to(folder).as_posix() for problem in scan_data(folder).problems}


def test_nested_images_in_folders_are_reported_and_not_used(tmp_path: Path) -> None:
    for name in ("good/1", "good/line2/2", "good/line2/3", "defect/a/4", "defect/a/deep/er/5", "defect/6"):
        image(tmp_path / f"{name}.png")
    mask(tmp_path / "mask" / "a" / "deep" / "5.png", True)
    image(tmp_path / "good" / ".thumbnails" / "1.png")
    image(tmp_path / "good" / "notes" / ".thumbnails" / "1.png")
    (tmp_path / "good" / "empty").mkdir()
    assert problem_paths(tmp_path) == {"good/line2", "defect/a/deep", "mask/a/deep"}
    assert [sample.image.name for sample in scan_data(tmp_path).samples] == ["1.png", "6.png", "4.png"]


def test_nested_images_in_mvtec_are_reported_and_not_used(tmp_path: Path) -> None:
    before = len(read_data(mvtec(tmp_path)))
    deep = ("train/good/line2", "test/good/line2", "test/crack/deep", "ground_truth/crack/deep")
    for name in deep:
        image(tmp_path / name / "1.png")
    assert problem_paths(tmp_path) == set(deep)
    assert len(scan_data(tmp_path).samples) == before


def test_nested_images_and_other_formats_in_ksdd2_are_reported_and_not_used(tmp_path: Path) -> None:
    folder = ksdd2(tmp_path, {"train": (2, 1), "test": (1, 2)})
    (folder / "surfaces.json").write_text("[]")
    image(folder / "train" / "line2" / "1.png")
    image(folder / "test" / "7.jpg")
    mask(folder / "test" / "7_GT.png", False)
    scan = scan_data(folder)
    assert problem_paths(folder) == {"train/line2", "test/7.jpg", "test/7_GT.png"}
    assert len(scan.samples) == 6
    assert all(problem.fix for problem in scan.problems)


def counts(folder: Path) -> dict[tuple[str, int], int]:
    """Return the number of samples of each split and label, after checking that all defects have masks."""
    samples = read_data(folder)
    assert all((sample.mask is not None) == bool(sample.label) for sample in samples if not sample.group)
    return dict(Counter((sample.split, sample.label) for sample in samples))


def test_mvtec_with_a_validation_part_is_read(tmp_path: Path) -> None:
    image(mvtec(tmp_path) / "validation" / "good" / "0.png")
    assert counts(tmp_path) == {("train", 0): 2, ("val", 0): 1, ("test", 0): 1, ("test", 1): 2}


def test_several_masks_of_an_image_of_mvtec_loco_are_united(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, truth = tmp_path / "loco", tmp_path / "loco" / "ground_truth" / "logical_anomalies"
    for name in ("train/good/0", "validation/good/0", "test/good/0", "test/logical_anomalies/0"):
        image(folder / f"{name}.png")
    for number, name in enumerate(("000", "001")):
        pixels = np.zeros(SIZE, np.uint8)
        pixels[number, number] = 200 + number
        (truth / "0").mkdir(parents=True, exist_ok=True)
        write_image(truth / "0" / f"{name}.png", pixels)
    monkeypatch.chdir(tmp_path)
    assert counts(folder) == {("train", 0): 1, ("val", 0): 1, ("test", 0): 1, ("test", 1): 1}
    (united,) = [sample.mask for sample in read_data(folder) if sample.mask]
    assert united.is_relative_to(tmp_path / "data")
    assert np.argwhere(read_mask(united)).tolist() == [[0, 0], [1, 1]]
    (truth / "0" / "001.png").unlink()
    assert [sample.mask for sample in read_data(folder) if sample.mask] == [truth / "0" / "000.png"]


def test_mvtec_ad_2_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (
        "train/good/0_regular",
        "validation/good/0_regular",
        "test_public/good/0_shift",
        "test_private/0_mixed",
    ):
        image(tmp_path / f"{name}.png")
    image(tmp_path / "test_public" / "bad" / "0_overexposed.png")
    mask(tmp_path / "test_public" / "ground_truth" / "bad" / "0_overexposed_mask.png", True)
    assert counts(tmp_path) == {("train", 0): 1, ("val", 0): 1, ("test", 0): 1, ("test", 1): 1}
    assert "test_private: ignored" in caplog.text


def test_btad_is_read(tmp_path: Path) -> None:
    for name in ("train/ok/0", "train/ok/1", "test/ok/0", "test/ko/0"):
        image(tmp_path / f"{name}.png")
    mask(tmp_path / "ground_truth" / "ko" / "0.png", True)
    assert counts(tmp_path) == {("train", 0): 2, ("test", 0): 1, ("test", 1): 1}


@pytest.mark.parametrize("split", ["", "split.csv", "../split_csv/1cls.csv"])
def test_visa_is_read_with_its_split(tmp_path: Path, split: str) -> None:
    folder = tmp_path / "candle"
    names = ["Normal/0", "Normal/1", "Anomaly/0"]
    for name in names:
        image(folder / "Data" / "Images" / f"{name}.JPG")
    mask(folder / "Data" / "Masks" / "Anomaly" / "0.png", True)
    if split:
        base = "candle/" if split.startswith("..") else ""
        parts = ["train", "test", "test"]
        rows = [f"candle,{part},x,{base}Data/Images/{name}.JPG,\n" for part, name in zip(parts, names, strict=True)]
        (folder / split).parent.mkdir(exist_ok=True)
        (folder / split).write_text("object,split,label,image,mask\n" + "".join(rows))
    expected = {("train", 0): 1, ("test", 0): 1, ("test", 1): 1} if split else {("", 0): 2, ("", 1): 1}
    assert counts(folder) == expected
    image(folder / "Data" / "Images" / "Normal" / "9.JPG")
    assert {problem.path.name for problem in scan_data(folder).problems} == ({"9.JPG"} if split else set())


def test_kolektor_sdd_is_read_with_one_group_a_part(tmp_path: Path) -> None:
    for part in ("kos01", "kos02"):
        for number in range(3):
            image(tmp_path / part / f"Part{number}.jpg")
            mask(tmp_path / part / f"Part{number}_label.bmp", number == 2)
    samples = read_data(tmp_path)
    assert [(sample.label, sample.group) for sample in samples] == [
        (0, "kos01"), (0, "kos01"), (1, "kos01"), (0, "kos02"), (0, "kos02"), (1, "kos02")
    ]  # fmt: skip
    (tmp_path / "kos02" / "Part0_label.bmp").unlink()
    assert [problem.what for problem in scan_data(tmp_path).problems] == ["no mask for this image"]


def test_files_that_share_a_name_are_reported_and_not_used(tmp_path: Path) -> None:
    folder = mvtec(tmp_path)
    image(folder / "test" / "crack" / "0.bmp")
    image(folder / "test" / "good_looking" / "1.png")
    for name in ("1", "1_mask"):
        mask(folder / "ground_truth" / "good_looking" / f"{name}.png", True)
    scan = scan_data(folder)
    assert {problem.path.relative_to(folder).as_posix() for problem in scan.problems} == {
        "test/crack/0.bmp", "test/crack/0.png", "ground_truth/good_looking/1.png",
        "ground_truth/good_looking/1_mask.png",
    }  # fmt: skip
    assert [sample.image.name for sample in scan.samples if sample.label] == ["0.png"]
    for name in ("good/1.png", "defect/a.png", "defect/a.bmp", "defect/b.png"):
        image(tmp_path / "folders" / name)
    for name in ("b", "b_mask"):
        mask(tmp_path / "folders" / "mask" / f"{name}.png", True)
    scan = scan_data(tmp_path / "folders")
    assert {problem.path.name for problem in scan.problems} >= {"a.png", "a.bmp", "b.png", "b_mask.png"}
    assert [sample.label for sample in scan.samples] == [0]


def test_masks_in_folders_may_have_the_suffix_of_mvtec(tmp_path: Path) -> None:
    for name in ("good/1", "defect/2"):
        image(tmp_path / f"{name}.png")
    mask(tmp_path / "mask" / "2_mask.png", True)
    assert [sample.mask for sample in read_data(tmp_path)] == [None, tmp_path / "mask" / "2_mask.png"]


@pytest.mark.parametrize("layout", ["mvtec", "folders", "ksdd2"])
def test_a_folder_with_images_beside_a_layout_is_reported(tmp_path: Path, layout: str) -> None:
    if layout == "mvtec":
        mvtec(tmp_path)
    elif layout == "folders":
        for name in ("good/1", "defect/2"):
            image(tmp_path / f"{name}.png")
    else:
        (ksdd2(tmp_path, {"train": (2, 1), "test": (1, 2)}) / "surfaces.json").write_text("[]")
    image(tmp_path / "extra" / "1.png")
    assert problem_paths(tmp_path) == {"extra"}


def test_train_and_test_with_unknown_folders_are_an_unknown_layout(tmp_path: Path) -> None:
    for name in ("train/a/1", "test/b/1"):
        image(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match="unknown layout; give a manifest"):
        read_data(tmp_path)

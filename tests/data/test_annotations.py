import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from inandout.data.annotations.export import PROVENANCE, write_annotated
from inandout.data.annotations.shapes import (
    bounding_box,
    decode_runs,
    encode_runs,
    fill_polygon,
    pack_runs,
    regions,
    trace_polygon,
    unpack_runs,
)
from inandout.data.config import AnnotationFormat
from inandout.data.images import Mask, read_image, read_mask, write_image
from inandout.data.manifest import Sample, read_manifest
from inandout.data.readers import scan_data
from inandout.errors import InputError

HEIGHT, WIDTH = 37, 50


def blobs(seed: int) -> Mask:
    """Return regions of any shape, with holes, touching corners and single pixels."""
    rng = np.random.default_rng(seed)
    return (ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), 1.2) > 0.25) | (
        rng.random((HEIGHT, WIDTH)) > 0.98
    )


def pool(folder: Path) -> list[Sample]:
    """Write four images: two kinds of defects, a good part, and a defect without a mask."""
    folder.mkdir()
    rows = []
    for i, (label, defect) in enumerate([(1, "crack"), (1, "pit"), (0, ""), (1, "")]):
        image, mask = folder / f"{i}.png", folder / f"{i}_mask.png"
        write_image(image, np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        write_image(mask, blobs(i))
        masked = mask if defect else None
        rows.append(
            Sample(image=image, mask=masked, label=label, defect=defect, split="train", origin="memseg", seed=i)
        )
    return rows


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are stored in `data/` of the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_and_polygons_are_exact(seed: int) -> None:
    for mask in (blobs(seed), ~blobs(seed), np.ones((HEIGHT, WIDTH), bool)):
        assert np.array_equal(decode_runs(unpack_runs(pack_runs(encode_runs(mask))), *mask.shape), mask)
        found = np.zeros_like(mask)
        for region in regions(mask):
            polygon = trace_polygon(region)
            assert np.array_equal(fill_polygon(polygon, *mask.shape), region)
            scaled = polygon / (WIDTH, HEIGHT)
            assert np.array_equal(fill_polygon(scaled * (WIDTH, HEIGHT), *mask.shape), region)
            found |= region
        assert np.array_equal(found, mask)


def test_a_rectangle_has_four_corners() -> None:
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    assert bounding_box(mask) == (2, 1, 4, 2)
    assert sorted(map(tuple, trace_polygon(mask).tolist())) == [(2, 1), (2, 3), (6, 1), (6, 3)]


@pytest.mark.parametrize("text", ["\x7f", "o"])
def test_invalid_compressed_runs_raise_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="compressed runs"):
        unpack_runs(text)


@pytest.mark.parametrize("kind", ["coco", "yolo", "mvtec"])
def test_a_pool_is_read_again_with_equal_pixels(tmp_path: Path, kind: AnnotationFormat) -> None:
    rows = pool(tmp_path / "pool")
    assert write_annotated(rows, tmp_path / "out", kind) == 3, "the defect without a mask is left out"
    scan = scan_data(tmp_path / "out")
    assert scan.problems == []
    assert len(scan.samples) == 3
    by_name = {sample.image.stem: sample for sample in scan.samples}
    for row in rows[:3]:
        sample = by_name[row.image.stem]
        assert (sample.label, sample.defect) == (row.label, row.defect)
        assert np.array_equal(read_image(sample.image), read_image(row.image))
        if row.label:
            assert sample.mask is not None
            assert row.mask is not None
            assert np.array_equal(read_mask(sample.mask), read_mask(row.mask))
        if kind != "mvtec":
            assert sample.split == "train"
    kept = read_manifest(tmp_path / "out" / PROVENANCE)
    assert [(row.origin, row.seed, row.defect) for row in kept] == [
        ("memseg", 0, "crack"),
        ("memseg", 1, "pit"),
        ("memseg", 2, ""),
    ]
    assert all(row.image.is_file() for row in kept)


def test_pycocotools_opens_the_masks(tmp_path: Path) -> None:
    module = pytest.importorskip("pycocotools.coco")
    rows = pool(tmp_path / "pool")
    write_annotated(rows, tmp_path / "out", "coco")
    coco = module.COCO(str(tmp_path / "out" / "annotations" / "instances_train.json"))
    for number, row in zip(coco.getImgIds(), rows[:3], strict=True):
        annotations = coco.loadAnns(coco.getAnnIds(number))
        assert bool(annotations) == bool(row.label)
        if row.label and row.mask:
            masks = [coco.annToMask(each) for each in annotations]
            assert np.array_equal(np.logical_or.reduce(masks), read_mask(row.mask))
            assert [each["area"] for each in annotations] == [mask.sum() for mask in masks]
            assert [each["bbox"] for each in annotations] == [list(bounding_box(mask > 0)) for mask in masks]


def test_datumaro_items_have_labels_and_masks(tmp_path: Path) -> None:
    rows = pool(tmp_path / "pool")
    write_annotated(rows, tmp_path / "out", "datumaro")
    content = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    names = [each["name"] for each in content["categories"]["label"]["labels"]]
    for item, row in zip(content["items"], rows[:3], strict=True):
        assert (tmp_path / "out" / "images" / "train" / item["image"]["path"]).is_file()
        assert {names[each["label_id"]] for each in item["annotations"]} == ({row.defect} if row.label else set())
        masks = [decode_runs(unpack_runs(each["rle"]["counts"]), *each["rle"]["size"]) for each in item["annotations"]]
        if row.label and row.mask:
            assert np.array_equal(np.logical_or.reduce(masks), read_mask(row.mask))


def test_unusable_exports_raise_an_error(tmp_path: Path) -> None:
    rows = pool(tmp_path / "pool")
    with pytest.raises(InputError, match="already exists"):
        write_annotated(rows, tmp_path / "pool", "coco")
    with pytest.raises(InputError, match="no image of the 1 has a mask"):
        write_annotated(rows[3:], tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


def images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        write_image(folder / name, np.full((8, 10, 3), 40 + i, np.uint8))


def test_yolo_boxes_and_all_its_problems(tmp_path: Path) -> None:
    images(tmp_path / "d" / "train" / "images", "a.png", "b.png", "c.png", "d.png")
    labels = tmp_path / "d" / "train" / "labels"
    labels.mkdir()
    (tmp_path / "d" / "data.yaml").write_text("names: [scratch]")
    (labels / "a.txt").write_text("0 0.5 0.5 0.4 0.5\n")
    (labels / "b.txt").write_text("1 0.5 0.5 0.4 0.5\n0 0.1 0.2 0.3\n0 2 2 1 1\nx\n")
    (labels / "c.txt").write_text("")
    samples, problems = scan_data(tmp_path / "d")
    assert [(sample.image.name, sample.label, sample.defect) for sample in samples] == [
        ("a.png", 1, "scratch"),
        ("c.png", 0, ""),
        ("d.png", 0, ""),
    ]
    assert samples[0].mask is not None
    expected = np.zeros((8, 10), bool)
    expected[2:6, 3:7] = True
    assert np.array_equal(read_mask(samples[0].mask), expected)
    assert [problem.what.partition(":")[0] for problem in problems] == ["line 1", "line 2", "line 3", "line 4"]


def test_coco_polygons_boxes_uncompressed_runs_and_all_problems(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png", "d.png"]
    images(tmp_path / "d" / "valid", *names)
    square = [2, 1, 5, 1, 5, 4, 2, 4]
    expected = np.zeros((8, 10), bool)
    expected[1:4, 2:5] = True
    annotations = [
        {"id": 1, "image_id": 0, "category_id": 7, "segmentation": [square]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [2, 1, 3, 3]},
        {
            "id": 3, "image_id": 2, "category_id": 7,
            "segmentation": {"size": [8, 10], "counts": encode_runs(expected)},
        },
        {"id": 4, "image_id": 3, "category_id": 8, "bbox": [2, 1, 3, 3]},
        {"id": 5, "image_id": 99, "category_id": 7, "bbox": [2, 1, 3, 3]},
    ]  # fmt: skip
    content = {
        "categories": [{"id": 7, "name": "dent"}],
        "images": [{"id": i, "file_name": name, "height": 8, "width": 10} for i, name in enumerate([*names, "e.png"])],
        "annotations": annotations,
    }
    (tmp_path / "d" / "valid" / "_annotations.coco.json").write_text(json.dumps(content))
    samples, problems = scan_data(tmp_path / "d")
    assert [(sample.image.name, sample.defect, sample.split) for sample in samples] == [
        (name, "dent", "val") for name in names[:3]
    ]
    for sample in samples:
        assert sample.mask is not None
        assert np.array_equal(read_mask(sample.mask), expected)
    assert [problem.what.partition(" is ")[0] for problem in problems] == [
        "annotation 4: category_id 8",
        "annotation 5: image_id 99",
        "image e.png",
    ]


def test_labelme_shapes_and_all_problems(tmp_path: Path) -> None:
    images(tmp_path / "d", "a.png", "b.png", "c.png", "d.png")
    size = {"imageHeight": 8, "imageWidth": 10}
    shapes = {
        "a": [
            {"label": "pit", "points": [[2, 1], [5, 4]], "shape_type": "rectangle"},
            {"label": "crack", "points": [[6, 6], [8, 6], [8, 8], [6, 8]], "shape_type": "polygon"},
        ],
        "b": [],
        "c": [{"label": "pit", "points": [[2, 1], [5, 4]], "shape_type": "line"}, {"points": []}],
    }
    for name, each in shapes.items():
        (tmp_path / "d" / f"{name}.json").write_text(json.dumps({"shapes": each, **size}))
    samples, problems = scan_data(tmp_path / "d")
    assert [(sample.image.name, sample.label, sample.defect) for sample in samples] == [
        ("a.png", 1, "crack+pit"),
        ("b.png", 0, ""),
    ]
    expected = np.zeros((8, 10), bool)
    expected[1:4, 2:5] = expected[6:8, 6:8] = True
    assert samples[0].mask is not None
    assert np.array_equal(read_mask(samples[0].mask), expected)
    assert [problem.path.name for problem in problems] == ["c.json", "c.json", "d.png"]


def test_a_circle_has_its_area(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    write_image(folder / "a.png", np.zeros((60, 60, 3), np.uint8))
    circle = {"label": "pit", "points": [[30, 30], [30, 50]], "shape_type": "circle"}
    (folder / "a.json").write_text(json.dumps({"shapes": [circle], "imageHeight": 60, "imageWidth": 60}))
    (sample,) = scan_data(folder).samples
    assert sample.mask is not None
    assert read_mask(sample.mask).sum() == pytest.approx(np.pi * 20**2, rel=0.02)


def test_a_wrong_annotation_leaves_its_image_out_and_hides_no_other(tmp_path: Path) -> None:
    """The folder of the data set has the word of a split in its name, which says nothing about the split."""
    folder = tmp_path / "widget-test"
    images(folder, "a.png", "b.png")
    box = {"category_id": 7, "bbox": [2, 1, 3, 3]}
    annotations = [{"id": 1, "image_id": 0, "category_id": 8}, {"id": 2, "image_id": 0, **box}, "x", {"image_id": []}]
    content = {
        "categories": [{"id": 7, "name": "dent"}],
        "images": [{"id": i, "file_name": name, "height": 8, "width": 10} for i, name in enumerate(["a.png", "b.png"])],
        "annotations": [*annotations, {"id": 5, "image_id": 1, **box}],
    }
    (folder / "ann.json").write_text(json.dumps(content))
    samples, problems = scan_data(folder)
    assert [(sample.image.name, sample.label, sample.split) for sample in samples] == [("b.png", 1, "")]
    assert [problem.what.partition(":")[0] for problem in problems] == ["annotation 1", "annotation 2", "annotation 3"]


@pytest.mark.parametrize("names", ["names: {a: b}", "names: [a"])
def test_names_of_yolo_that_cannot_be_read_raise_an_error(tmp_path: Path, names: str) -> None:
    images(tmp_path / "d" / "train" / "images", "a.png")
    (tmp_path / "d" / "train" / "labels").mkdir()
    (tmp_path / "d" / "data.yaml").write_text(names)
    with pytest.raises(InputError, match="its names of classes cannot be read"):
        scan_data(tmp_path / "d")


def test_a_label_file_of_yolo_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    images(tmp_path / "d" / "train" / "images", "a.png", "b.png")
    (tmp_path / "d" / "train" / "labels").mkdir()
    (tmp_path / "d" / "train" / "labels" / "a.txt").write_bytes(b"\xff\xfe")
    samples, problems = scan_data(tmp_path / "d")
    assert [sample.image.name for sample in samples] == ["b.png"]
    assert [problem.what for problem in problems] == ["is not UTF-8 text"]


@pytest.mark.parametrize("defect", ["good", "..", "../../outside", "spot/1"])
def test_a_defect_that_is_no_folder_is_not_exported_as_mvtec(tmp_path: Path, defect: str) -> None:
    rows = [row.with_(defect=defect) if row.label else row for row in pool(tmp_path / "pool")]
    with pytest.raises(InputError, match="is no name for a folder of defects"):
        write_annotated(rows, tmp_path / "out", "mvtec")
    assert not (tmp_path / "out").exists()

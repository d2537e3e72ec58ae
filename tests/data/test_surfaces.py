import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from inandout.data.images import read_image, read_mask
from inandout.data.surfaces import (
    COLOURS,
    CONTRASTS,
    KINDS,
    LIGHTINGS,
    PALETTES,
    SIZES,
    SURFACES,
    SurfacesConfig,
    draw_surface,
    draw_texture,
    write_surfaces,
)
from inandout.data.surfaces.defects import DEFECTS
from inandout.data.surfaces.textures import MATERIALS
from inandout.errors import InputError

SHAPES = [(16, 16), (17, 33), (64, 64), (96, 17), (64, 192)]
SMALL = SurfacesConfig(
    width=32, height=48, train_negatives=7, train_positives=6, test_negatives=4, test_positives=3, seed=5
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surfaces") / "set"
    assert write_surfaces(folder, SMALL) is True
    return folder


@pytest.mark.parametrize("defect", ["", *KINDS])
def test_images_are_deterministic(defect: str) -> None:
    first = draw_surface(40, 50, 7, defect)
    draw_surface(64, 64, 8, "cracked", "cast")
    again = draw_surface(40, 50, 7, defect)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert (first.surface, first.size, first.count) == (again.surface, again.size, again.count)


def test_threads_and_order_do_not_change_images() -> None:
    cases = [(seed, KINDS[seed % len(KINDS)]) for seed in range(40)]
    sequential = [draw_surface(33, 40, *case).image for case in cases]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda case: draw_surface(33, 40, *case).image, reversed(cases)))
    assert all(np.array_equal(a, b) for a, b in zip(sequential, reversed(parallel), strict=True))


def test_other_seeds_give_other_images() -> None:
    images = {draw_surface(32, 32, seed, surface="cast").image.tobytes() for seed in range(50)}
    assert len(images) == 50


@pytest.mark.parametrize("defect", KINDS)
@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_a_defect_changes_the_image_only_inside_its_mask(width: int, height: int, defect: str) -> None:
    for seed in range(25):
        clean, result = draw_surface(width, height, seed), draw_surface(width, height, seed, defect)
        change = np.abs(result.image.astype(int) - clean.image).max(axis=2)
        assert result.mask.any()
        assert not change[~result.mask].any()
        assert change[result.mask].max() >= 6, f"seed {seed}: {result.contrast} {defect} is not visible"
        assert result.mask.mean() < 0.6


def test_masks_fit_the_visible_change() -> None:
    for defect in KINDS:
        visible = []
        for seed in range(30):
            clean, result = draw_surface(64, 64, seed), draw_surface(64, 64, seed, defect)
            if result.contrast == "strong":
                change = np.abs(result.image.astype(int) - clean.image).max(axis=2)
                visible.append((change[result.mask] >= 2).mean())
        assert np.mean(visible) > 0.6, defect


@pytest.mark.parametrize("surface", SURFACES)
def test_large_surfaces_have_texture_and_little_clipping(surface: str) -> None:
    result = draw_surface(200, 600, 3, surface=surface)
    assert result.image.shape == (600, 200, 3) and result.image.dtype == np.uint8
    assert result.mask.shape == (600, 200) and not result.mask.any()
    assert result.image.std() > 0.04 * result.image.mean()
    assert result.image.min() >= 7 and result.image.max() <= 248


def test_all_attribute_values_occur() -> None:
    surfaces = [draw_surface(32, 32, seed, KINDS[seed % len(KINDS)]) for seed in range(200)]
    assert {item.surface for item in surfaces} == set(SURFACES)
    assert {item.lighting for item in surfaces} == set(LIGHTINGS)
    assert {item.size for item in surfaces} == set(SIZES) and {item.contrast for item in surfaces} == set(CONTRASTS)
    assert all(item.colour in PALETTES[item.surface] and item.colour in COLOURS for item in surfaces)
    assert all(item.count >= 1 for item in surfaces)
    clean = draw_surface(32, 32, 0)
    assert (clean.defect, clean.size, clean.contrast, clean.count) == ("", "", "", 0)


def test_contrast_words_are_in_order() -> None:
    change: dict[str, list[float]] = {word: [] for word in CONTRASTS}
    for seed in range(150):
        clean, result = draw_surface(48, 48, seed), draw_surface(48, 48, seed, KINDS[seed % len(KINDS)])
        change[result.contrast].append(np.abs(result.image.astype(int) - clean.image)[result.mask].mean())
    faint, clear, strong = (np.mean(change[word]) for word in ("faint", "clear", "strong"))
    assert faint * 1.3 < clear and clear * 1.1 < strong


def test_parts_of_one_product_share_the_colour_only() -> None:
    parts = [draw_surface(32, 32, seed, surface="brushed", product=4) for seed in range(20)]
    assert len({part.colour for part in parts}) == 1
    assert len({part.lighting for part in parts}) > 1
    assert len({part.image.tobytes() for part in parts}) == 20
    products = {draw_surface(32, 32, 0, surface="brushed", product=product).colour for product in range(20)}
    assert len(products) > 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((15, 64, 0), ["15x64", "16"]),
        ((64, 2, 0), ["64x2", "16"]),
        ((64, 64, -1), ["-1"]),
        ((64, 64, 0, "rusty"), ["'rusty'", *KINDS]),
        ((64, 64, 0, "cracked", "velvet"), ["'velvet'", *SURFACES]),
    ],
)
def test_invalid_arguments_raise_an_error(arguments: tuple[int, int, int], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        draw_surface(*arguments)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 33), (8, 5), (64, 192)])
def test_textures_vary_and_are_deterministic(width: int, height: int) -> None:
    rng = np.random.default_rng(1)
    textures = [draw_texture(width, height, rng) for _ in range(20)]
    assert all(texture.shape == (height, width, 3) and texture.dtype == np.uint8 for texture in textures)
    assert np.std([texture.mean() for texture in textures]) > 10
    assert np.array_equal(draw_texture(width, height, np.random.default_rng(1)), textures[0])


def test_a_dataset_has_the_kolektorsdd2_layout_and_the_configured_counts(dataset: Path) -> None:
    assert sorted(path.name for path in dataset.iterdir()) == ["surfaces.json", "test", "train"]
    for split, first, total, positives in (("train", 10000, 13, 6), ("test", 20000, 7, 3)):
        names = {f"{number}{end}" for number in range(first, first + total) for end in (".png", "_GT.png")}
        assert {path.name for path in (dataset / split).iterdir()} == names
        masks = [read_mask(path) for path in sorted((dataset / split).glob("*_GT.png"))]
        assert sum(mask.any() for mask in masks) == positives
        assert read_image(dataset / split / f"{first}.png").shape == (48, 32, 3)
        with Image.open(dataset / split / f"{first}_GT.png") as image:
            assert image.mode == "L" and image.size == (32, 48)
            assert set(np.unique(np.asarray(image))) <= {0, 255}


def test_positives_are_not_all_at_the_end(dataset: Path) -> None:
    rows = json.loads((dataset / "surfaces.json").read_text())["images"]
    labels = [bool(row["defect"]) for row in rows if row["file"].startswith("train/")]
    assert labels not in (sorted(labels), sorted(labels, reverse=True))


def test_the_metadata_reproduce_every_image(dataset: Path) -> None:
    record = json.loads((dataset / "surfaces.json").read_text())
    assert record["config"] == SMALL.model_dump() and record["drawing"]
    assert sorted(row["defect"] for row in record["images"] if row["file"].startswith("train/") and row["defect"]) == (
        sorted(KINDS)
    )
    for row in record["images"]:
        result = draw_surface(32, 48, row["seed"], row["defect"], row["surface"], product=SMALL.seed)
        assert np.array_equal(result.image, read_image(dataset / row["file"]))
        assert np.array_equal(result.mask, read_mask(dataset / row["file"].replace(".png", "_GT.png")))
        assert (row["size"], row["contrast"], row["count"]) == (result.size, result.contrast, result.count)


def test_the_default_is_one_product_and_mixed_is_many(dataset: Path, tmp_path: Path) -> None:
    single = json.loads((dataset / "surfaces.json").read_text())["images"]
    assert {row["surface"] for row in single} == {"brushed"} and len({row["colour"] for row in single}) == 1
    write_surfaces(tmp_path / "mixed", SMALL.model_copy(update={"surface": "mixed"}))
    mixed = json.loads((tmp_path / "mixed" / "surfaces.json").read_text())["images"]
    assert len({row["surface"] for row in mixed}) > 3


def test_an_equal_dataset_is_reused(dataset: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    assert write_surfaces(dataset, SMALL) is False
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*")} == before


def test_any_other_folder_raises_an_error_and_is_unchanged(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another configuration"):
        write_surfaces(dataset, SMALL.model_copy(update={"seed": 6}))
    assert (dataset / "train" / "10000.png").is_file()
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(InputError, match="not a surfaces dataset"):
        write_surfaces(tmp_path, SMALL)
    with pytest.raises(InputError, match="not a surfaces dataset"):
        write_surfaces(tmp_path / "notes.txt", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_dataset_with_a_missing_image_raises_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_surfaces(folder, SMALL)
    (folder / "test" / "20003.png").unlink()
    with pytest.raises(InputError, match=r"20003\.png is missing"):
        write_surfaces(folder, SMALL)


def test_a_failed_run_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_until_disk_full(path: Path, pixels: object) -> None:
        if path.name == "20001.png":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("inandout.data.surfaces.dataset.write_image", write_until_disk_full)
    with pytest.raises(InputError, match="No space left"):
        write_surfaces(tmp_path / "set", SMALL)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert write_surfaces(tmp_path, SMALL) is True
    assert (tmp_path / "surfaces.json").is_file()


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 15},
        {"height": 5000},
        {"test_positives": 0},
        {"seed": -1},
        {"seed": 2**32},
        {"surface": "velvet"},
        {"x": 1},
    ],
)
def test_a_configuration_out_of_bounds_raises_an_error(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SurfacesConfig.model_validate(changes)


def test_names_are_in_the_order_that_seeds_choose_from() -> None:
    assert tuple(MATERIALS) == SURFACES
    assert tuple(DEFECTS) == KINDS

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
from inandout.errors import InputError

SHAPES = [(16, 16), (17, 33), (64, 64), (96, 17), (64, 192)]
SMALL = SurfacesConfig(
    width=32, height=48, train_negatives=7, train_positives=6, test_negatives=4, test_positives=3, seed=5
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surfaces") / "set"
    assert write_surfaces(folder, SMALL) is True
    return folder


@pytest.mark.parametrize("defect", ["", *KINDS])
def test_the_same_arguments_give_the_same_image(defect: str) -> None:
    first = draw_surface(40, 50, 7, defect)
    draw_surface(64, 64, 8, "cracked", "cast")
    again = draw_surface(40, 50, 7, defect)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert (first.surface, first.size, first.count) == (again.surface, again.size, again.count)


def test_threads_and_order_do_not_change_images() -> None:
    cases = [(seed, KINDS[seed % len(KINDS)]) for seed in range(40)]
    alone = [draw_surface(33, 40, *case).image for case in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda case: draw_surface(33, 40, *case).image, reversed(cases)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, reversed(together), strict=True))


def test_other_seeds_give_other_images() -> None:
    images = {draw_surface(32, 32, seed, surface="cast").image.tobytes() for seed in range(50)}
    assert len(images) == 50


@pytest.mark.parametrize("defect", KINDS)
@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_a_defect_changes_the_image_inside_its_mask_and_nowhere_else(width: int, height: int, defect: str) -> None:
    for seed in range(25):
        clean, drawn = draw_surface(width, height, seed), draw_surface(width, height, seed, defect)
        change = np.abs(drawn.image.astype(int) - clean.image).max(axis=2)
        assert drawn.mask.any()
        assert not change[~drawn.mask].any()
        assert change[drawn.mask].max() >= 6, f"seed {seed}: {drawn.contrast} {defect} cannot be seen"
        assert drawn.mask.mean() < 0.6


def test_a_mask_is_not_much_larger_than_what_can_be_seen() -> None:
    for defect in KINDS:
        visible = []
        for seed in range(30):
            clean, drawn = draw_surface(64, 64, seed), draw_surface(64, 64, seed, defect)
            if drawn.contrast == "strong":
                change = np.abs(drawn.image.astype(int) - clean.image).max(axis=2)
                visible.append((change[drawn.mask] >= 2).mean())
        assert np.mean(visible) > 0.6, defect


@pytest.mark.parametrize("surface", SURFACES)
def test_a_large_image_of_every_surface_has_texture_and_no_wide_clipping(surface: str) -> None:
    drawn = draw_surface(200, 600, 3, surface=surface)
    assert drawn.image.shape == (600, 200, 3) and drawn.image.dtype == np.uint8
    assert drawn.mask.shape == (600, 200) and not drawn.mask.any()
    assert drawn.image.std() > 0.04 * drawn.image.mean()
    assert drawn.image.min() >= 7 and drawn.image.max() <= 248


def test_words_describe_what_was_drawn() -> None:
    drawn = [draw_surface(32, 32, seed, KINDS[seed % len(KINDS)]) for seed in range(200)]
    assert {one.surface for one in drawn} == set(SURFACES)
    assert {one.lighting for one in drawn} == set(LIGHTINGS)
    assert {one.size for one in drawn} == set(SIZES) and {one.contrast for one in drawn} == set(CONTRASTS)
    assert all(one.colour in PALETTES[one.surface] and one.colour in COLOURS and one.count >= 1 for one in drawn)
    clean = draw_surface(32, 32, 0)
    assert (clean.defect, clean.size, clean.contrast, clean.count) == ("", "", "", 0)


def test_contrast_words_are_in_order() -> None:
    change: dict[str, list[float]] = {word: [] for word in CONTRASTS}
    for seed in range(150):
        clean, drawn = draw_surface(48, 48, seed), draw_surface(48, 48, seed, KINDS[seed % len(KINDS)])
        change[drawn.contrast].append(np.abs(drawn.image.astype(int) - clean.image)[drawn.mask].mean())
    faint, clear, strong = (np.mean(change[word]) for word in ("faint", "clear", "strong"))
    assert faint * 1.3 < clear and clear * 1.1 < strong


def test_parts_of_one_product_share_its_colour_and_differ_otherwise() -> None:
    parts = [draw_surface(32, 32, seed, surface="brushed", product=4) for seed in range(20)]
    assert len({part.colour for part in parts}) == 1
    assert len({part.lighting for part in parts}) > 1
    assert len({part.image.tobytes() for part in parts}) == 20
    products = {draw_surface(32, 32, 0, surface="brushed", product=product).colour for product in range(20)}
    assert len(products) > 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((15, 64, 0), ["15x64", "16"]),
        ((64, 2, 0), ["64x2", "16"]),
        ((64, 64, -1), ["-1"]),
        ((64, 64, 0, "rusty"), ["'rusty'", *KINDS]),
        ((64, 64, 0, "cracked", "velvet"), ["'velvet'", *SURFACES]),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: tuple[int, int, int], named: list[str]) -> None:
    with pytest.raises(InputError) as error:
        draw_surface(*arguments)
    assert all(word in str(error.value) for word in named)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 33), (8, 5), (64, 192)])
def test_textures_vary_and_follow_their_generator(width: int, height: int) -> None:
    rng = np.random.default_rng(1)
    textures = [draw_texture(width, height, rng) for _ in range(20)]
    assert all(texture.shape == (height, width, 3) and texture.dtype == np.uint8 for texture in textures)
    assert np.std([texture.mean() for texture in textures]) > 10
    assert np.array_equal(draw_texture(width, height, np.random.default_rng(1)), textures[0])


def test_a_data_set_has_kolektorsdd2s_layout_and_the_counts_asked_for(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == ["surfaces.json", "test", "train"]
    for split, first, total, positives in (("train", 10000, 13, 6), ("test", 20000, 7, 3)):
        names = {f"{number}{end}" for number in range(first, first + total) for end in (".png", "_GT.png")}
        assert {path.name for path in (written / split).iterdir()} == names
        masks = [read_mask(path) for path in sorted((written / split).glob("*_GT.png"))]
        assert sum(mask.any() for mask in masks) == positives
        assert read_image(written / split / f"{first}.png").shape == (48, 32, 3)
        with Image.open(written / split / f"{first}_GT.png") as image:
            assert image.mode == "L" and image.size == (32, 48)
            assert set(np.unique(np.asarray(image))) <= {0, 255}


def test_positives_are_not_all_at_the_end(written: Path) -> None:
    rows = json.loads((written / "surfaces.json").read_text())["images"]
    labels = [bool(row["defect"]) for row in rows if row["file"].startswith("train/")]
    assert labels not in (sorted(labels), sorted(labels, reverse=True))


def test_the_record_says_how_to_draw_every_image_again(written: Path) -> None:
    record = json.loads((written / "surfaces.json").read_text())
    assert record["config"] == SMALL.model_dump() and record["version"]
    assert sorted(row["defect"] for row in record["images"] if row["file"].startswith("train/") and row["defect"]) == (
        sorted(KINDS)
    )
    for row in record["images"]:
        drawn = draw_surface(32, 48, row["seed"], row["defect"], row["surface"], product=SMALL.seed)
        assert np.array_equal(drawn.image, read_image(written / row["file"]))
        assert np.array_equal(drawn.mask, read_mask(written / row["file"].replace(".png", "_GT.png")))
        assert (row["size"], row["contrast"], row["count"]) == (drawn.size, drawn.contrast, drawn.count)


def test_one_product_by_default_and_many_when_mixed(written: Path, tmp_path: Path) -> None:
    one = json.loads((written / "surfaces.json").read_text())["images"]
    assert {row["surface"] for row in one} == {"brushed"} and len({row["colour"] for row in one}) == 1
    write_surfaces(tmp_path / "mixed", SMALL.model_copy(update={"surface": "mixed"}))
    mixed = json.loads((tmp_path / "mixed" / "surfaces.json").read_text())["images"]
    assert len({row["surface"] for row in mixed}) > 3


def test_an_equal_data_set_is_reused_untouched(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    assert write_surfaces(written, SMALL) is False
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_any_other_folder_is_refused_and_kept(written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another configuration"):
        write_surfaces(written, SMALL.model_copy(update={"seed": 6}))
    assert (written / "train" / "10000.png").is_file()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no data set of surfaces"):
        write_surfaces(tmp_path, SMALL)
    with pytest.raises(InputError, match="no data set of surfaces"):
        write_surfaces(tmp_path / "notes.txt", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_data_set_with_a_image_missing_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_surfaces(folder, SMALL)
    (folder / "test" / "20003.png").unlink()
    with pytest.raises(InputError, match=r"20003\.png is missing"):
        write_surfaces(folder, SMALL)


def test_a_run_that_dies_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, pixels: object) -> None:
        if path.name == "20001.png":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("inandout.data.surfaces.dataset.write_image", full)
    with pytest.raises(InputError, match="No space left"):
        write_surfaces(tmp_path / "set", SMALL)
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert write_surfaces(tmp_path, SMALL) is True
    assert (tmp_path / "surfaces.json").is_file()


@pytest.mark.parametrize(
    "bad",
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
def test_a_configuration_out_of_bounds_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SurfacesConfig.model_validate(bad)

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from inandout.data.config import DataConfig, ShotConfig
from inandout.data.images import read_image, write_image
from inandout.data.manifest import Sample, digest, fingerprint, write_manifest
from inandout.data.prepare import data_path, prepare, prepare_shot, read_checked, read_data
from inandout.errors import InputError


def flipped_pairs(folder: Path) -> Path:
    """Write 12 textures per split, each with a flipped copy, without groups."""
    samples = []
    for number in range(24):
        noise = gaussian_filter(np.random.default_rng(number).normal(size=(64, 64)), 1.5)
        image = np.clip(128 + 300 * noise, 0, 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)
        for name, pixels in (("a", image), ("b", image[:, ::-1])):
            path = folder / f"{number}{name}.png"
            write_image(path, np.ascontiguousarray(pixels))
            samples.append(Sample(image=path, label=number % 3 == 0, split="train" if number < 12 else "test"))
    write_manifest(samples, folder / "pairs.csv")
    return folder / "pairs.csv"


@pytest.mark.parametrize("seed", range(4))
def test_near_duplicates_stay_in_one_split(tmp_path: Path, seed: int) -> None:
    samples = prepare(DataConfig(data=str(flipped_pairs(tmp_path)), val_share=0.3), seed)
    split = {sample.image.name: sample.split for sample in samples}
    assert "val" in split.values()
    assert all(split[f"{number}a.png"] == split[f"{number}b.png"] for number in range(24))


def test_the_embedded_dataset_is_generated_once_and_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = data_path("surfaces")
    first = digest(folder / "train" / "10000.png")
    (folder / "mark").touch()
    assert data_path("surfaces") == folder
    assert (folder / "mark").exists()
    assert digest(folder / "train" / "10000.png") == first


def test_a_changed_file_is_checked_again(tmp_path: Path) -> None:
    manifest = flipped_pairs(tmp_path)
    read_checked(str(manifest))
    write_image(tmp_path / "0a.png", read_image(tmp_path / "1a.png"))
    with pytest.raises(InputError, match="the same content as"):
        read_checked(str(manifest))


def age(manifest: Path) -> None:
    """Set old modification times, so that files are cached."""
    for path in manifest.parent.iterdir():
        os.utime(path, (1e9, 1e9))


def test_a_checked_dataset_is_split_for_every_seed_and_shot_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(flipped_pairs(tmp_path))
    age(tmp_path / "pairs.csv")
    requests = [
        (DataConfig(data=name, val_share=share), ShotConfig(shot=shot, n_shot=2), seed)
        for share in (0.2, 0.4) for seed in (0, 1) for shot in ("zero", "few", "full")
    ]  # fmt: skip
    expected_splits = [prepare(config, seed) for config, _, seed in requests]
    expected_shots = [prepare_shot(*request) for request in requests]
    data, before = read_data(name), [fingerprint(samples) for samples in expected_shots]
    for module in ("check", "duplicates"):
        monkeypatch.setattr(f"inandout.data.{module}.read_image", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr("inandout.data.manifest._digest", lambda *_: pytest.fail("read again"))
    assert [data.split(config, seed) for config, _, seed in requests] == expected_splits
    assert [data.take_shot(*request) for request in requests] == expected_shots
    assert [fingerprint(data.take_shot(*request)) for request in requests] == before
    assert len(set(before)) == len(requests)


def test_a_later_copy_of_a_test_image_in_the_training_split_raises_an_error(tmp_path: Path) -> None:
    config = DataConfig(data=str(flipped_pairs(tmp_path)), val_share=0.3)
    age(tmp_path / "pairs.csv")
    before = fingerprint(prepare(config, 0))
    good = (tmp_path / "0a.png").read_bytes()
    (tmp_path / "0a.png").write_bytes((tmp_path / "20a.png").read_bytes())
    with pytest.raises(InputError, match="the same content as"):
        prepare(config, 0)
    (tmp_path / "0a.png").write_bytes(good)
    assert fingerprint(prepare(config, 0)) == before


def test_a_changed_row_is_read_again(tmp_path: Path) -> None:
    manifest = flipped_pairs(tmp_path)
    before = read_checked(str(manifest))
    manifest.write_text(manifest.read_text().replace("0a.png,,1", "0a.png,,0", 1))
    after = read_checked(str(manifest))
    assert (before[0].label, after[0].label) == (1, 0)

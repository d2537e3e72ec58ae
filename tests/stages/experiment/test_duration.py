"""Rough durations for the announcements of commands."""

import csv
import re
from pathlib import Path

import pytest

from inandout.errors import InputError
from inandout.options import known
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.config import FinetuneConfig
from inandout.stages.experiment import duration
from inandout.stages.experiment.duration import describe_duration, image_passes
from inandout.stages.pools.config import AugmentConfig


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duration, "allowed_cores", lambda: 1)


def minutes(config: ClassifyConfig | AugmentConfig | FinetuneConfig) -> int:
    text = describe_duration(config.resolved())
    return 0 if text.startswith("less") else int(re.findall(r"about (\d+) min on 1 CPU core ", text)[0])


def manifest(path: Path, good: int, defects: int, test: int = 0) -> str:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split", "defect"])
        writer.writerows(
            [f"{n}.png", int(n >= good), "train", "" if n < good else f"kind {n % 5}"] for n in range(good + defects)
        )
        writer.writerows([f"test {n}.png", n % 2, "test", ""] for n in range(test))
    return str(path)


def test_training_takes_as_long_as_it_shows_images(tmp_path: Path) -> None:
    data = manifest(tmp_path / "data.csv", 100, 50)
    once = minutes(ClassifyConfig.from_flat(data=data, val_share=0, n_aug=0, epochs=100))
    pixels = 64 * 192 * 100 * (2 * 50)
    assert once == pytest.approx(pixels / 1e6 * duration._TRAINING["resnet50"] / 60, abs=1)
    assert minutes(ClassifyConfig.from_flat(data=data, val_share=0, n_aug=50, epochs=100)) == pytest.approx(
        2 * once, abs=1
    )
    assert minutes(ClassifyConfig.from_flat(data=data, val_share=0, n_aug=0, epochs=100, freeze="all")) < once / 9
    few = ClassifyConfig.from_flat(data=data, shot="few", n_shot=25, n_aug=0, epochs=100)
    assert minutes(few) == pytest.approx(once / 2, abs=1)
    of_each = ClassifyConfig.from_flat(data=data, shot="few", n_shot=5, each_kind=True, n_aug=0, epochs=100)
    assert minutes(of_each) == minutes(few), "five of each of five kinds"


def test_the_images_of_the_test_part_take_a_forward_pass(tmp_path: Path) -> None:
    def classify(test: int) -> ClassifyConfig:
        data = manifest(tmp_path / f"{test}.csv", 100, 50, test)
        return ClassifyConfig.from_flat(data=data, val_share=0, n_aug=0, epochs=1, freeze="all", width=512, height=512)

    pixels = 512 * 512 * 1000
    forward = pixels / 1e6 * duration._TRAINING["resnet50"] / duration.BACKWARD / 60
    assert minutes(classify(1000)) - minutes(classify(0)) == pytest.approx(forward, abs=1)


def test_diffusion_adds_the_drawing_and_the_fine_tuning() -> None:
    zero = {"shot": "zero", "n_aug": 80, "ddpm_ratio": 1.0}
    alone = minutes(FinetuneConfig.from_flat(shot="zero"))
    drawn = minutes(AugmentConfig.from_flat(source="ddpm", shot="zero", n_aug=80))
    assert 0 < alone < drawn
    assert (
        minutes(AugmentConfig.from_flat(source="ddpm", shot="zero", n_aug=80, adapter="a.safetensors", prompts="a"))
        < drawn
    )
    assert minutes(ClassifyConfig.from_flat(**zero, epochs=1)) >= drawn
    inpainted = minutes(ClassifyConfig.from_flat(**zero, epochs=1, diffusion="inpaint"))
    assert inpainted > minutes(ClassifyConfig.from_flat(**zero, epochs=1, ddpm_pool="pool"))
    assert minutes(AugmentConfig.from_flat(source="memseg")) == 0


def test_diag_draws_large_images_without_fine_tuning() -> None:
    config = ClassifyConfig.from_flat(diffusion="diag", fit="stretch", n_aug=8, ddpm_ratio=1.0, epochs=1)
    drawn = 8 * 30 * 2 * 1024 * 1024 / 1e6 * duration._EMBEDDED / 60
    assert minutes(config) == pytest.approx(drawn, abs=1)


def test_the_passes_of_an_image_depend_on_guidance_and_drawn_masks() -> None:
    def per_step(**options: object) -> float:
        pool = ClassifyConfig.from_flat(ddpm_ratio=1, **options).diffusion_pool(1).resolved()
        return image_passes(pool) / known(pool.sampling.steps)

    assert per_step(guidance_mode="plain") == 2
    assert per_step(guidance_mode="plain", guidance=1) == 1
    assert per_step(guidance_mode="composed") == 3
    assert per_step(guidance_mode="composed", diffusion="inpaint") == 7
    assert per_step(diffusion="diag") == 2


def test_a_larger_base_takes_hours(tmp_path: Path) -> None:
    config = FinetuneConfig.from_flat(base="a/b@" + "0" * 40, width=512, height=512)
    assert re.match(r"about \d+ hours on 1 CPU core ", describe_duration(config.resolved()))


def test_data_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="nowhere"):
        describe_duration(ClassifyConfig.from_flat(data="nowhere").resolved())

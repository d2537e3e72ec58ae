"""The judge of kinds learns from real images, and classifies the images of a pool."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from benchmarks.judge_kinds import main
from inandout.data.images import write_image
from inandout.data.manifest import Sample, write_manifest

pytestmark = pytest.mark.slow

GREY = {"bright": 250, "dark": 0}
"""Kinds of defects: squares of these grey levels."""
KINDS = tuple(GREY)


def write_parts(folder: Path, first: int, kinds: tuple[str, ...], count: int, origin: str) -> None:
    """Write `count` parts of each kind, "" = good, with masks and a manifest."""
    folder.mkdir()
    samples = []
    for number in range(count * len(kinds)):
        kind = kinds[number % len(kinds)]
        pixels = np.random.default_rng(first + number).integers(90, 130, (64, 64, 3), dtype=np.uint8)
        where = np.zeros((64, 64), bool)
        if kind:
            where[20:34, 10 + number % 30 : 24 + number % 30] = True
            pixels[where] = GREY[kind]
        image, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
        write_image(image, pixels)
        write_image(mask, where)
        named = {"prompt": f"skt background {kind}"} if origin == "inpaint" else {"defect": kind}
        split = "test" if number < 6 else "train"
        sample = Sample(
            image=image, mask=mask if kind else None, label=int(bool(kind)), split=split, origin=origin,
            group=f"{origin} {number}", **named,
        )  # fmt: skip
        samples.append(sample)
    write_manifest(samples, folder / "manifest.csv")


def shares(text: str, row: str) -> list[int]:
    """Return the percentages of a row of the only table of a text."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row}")]
    return [int(share) for share in re.findall(r"(\d+)%", line)]


def test_kinds_of_a_pool_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in mobilenet_v2().state_dict().items()}, weights)
    write_parts(tmp_path / "real", 0, ("", *KINDS), 16, "real")
    write_parts(tmp_path / "pool", 9000, KINDS, 8, "inpaint")
    arguments = ["--data", str(tmp_path / "real" / "manifest.csv"), "--weights", str(weights), "--side", "64"]
    monkeypatch.setattr(sys, "argv", ["judge_kinds.py", *arguments, "--pool", str(tmp_path / "pool")])
    main()
    real, text = capsys.readouterr().out.split(f"{tmp_path / 'pool'}: percent")
    assert "none | bright | dark" in real
    assert "none | bright | dark" in text
    assert shares(text, "bright")[1] >= 90, text  # chance is a third
    assert shares(text, "dark")[2] >= 90, text

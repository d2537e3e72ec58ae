"""A tiny data set and a fresh project folder, made anew for each test that asks."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from inandout.data.images import write_image
from inandout.data.manifest import Sample, write_manifest

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when a test imports it: workers of pytest-xdist share the cores
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # commands that tests start share the compiled package
SIDE = 32


def draw(seed: int, defect: bool) -> tuple[np.ndarray, np.ndarray]:
    """A noisy grey square; the defect is a bright one of 6x6 somewhere on it."""
    rng = np.random.default_rng(seed)
    image = rng.integers(80, 120, (SIDE, SIDE, 1), dtype=np.uint8).repeat(3, axis=2)
    mask = np.zeros((SIDE, SIDE), bool)
    if defect:
        top, left = rng.integers(2, SIDE - 8, 2)
        mask[top : top + 6, left : left + 6] = True
        image[mask] = 230
    return image, mask


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """See `write_tiny`."""
    return write_tiny(tmp_path / "tiny")


def write_tiny(folder: Path) -> Path:
    """CSV manifest: 20 negatives and 8 positives to train on, 8 and 6 to test on."""
    folder.mkdir()
    samples = []
    for number, (split, label) in enumerate(
        [("train", 0)] * 20 + [("train", 1)] * 8 + [("test", 0)] * 8 + [("test", 1)] * 6
    ):
        image, mask = draw(number, bool(label))
        image_path, mask_path = folder / f"{number}.png", folder / f"{number}_mask.png"
        write_image(image_path, image)
        write_image(mask_path, mask)
        samples.append(Sample(image=image_path, mask=mask_path, label=label, split=split, group=f"part {number}"))
    write_manifest(samples, folder / "tiny.csv")
    return folder / "tiny.csv"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store without an experiment, to copy: MLflow makes its tables in seconds, too many for every test."""
    import mlflow

    store = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{store}").search_experiments()
    with closing(sqlite3.connect(store)) as opened, opened:
        opened.execute("DELETE FROM experiments")  # the default one knows where its artifacts lie
    return store


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Iterator[Path]:
    """An empty working folder with a tracking store of its own."""
    import mlflow

    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    yield folder
    while mlflow.active_run():
        mlflow.end_run()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster that starts with a machine of one core; `add_node` adds others, as far as Ray can tell."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # its processes import these tests
    with FileLock(Path(tempfile.gettempdir(), "inandout-ray.lock")):  # Ray finds the clusters of other processes
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield made
        made.shutdown()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion as a folder in diffusers' format."""
    from tests.diffusion.tiny import tiny_pipeline

    folder = tmp_path_factory.mktemp("base") / "tiny-base"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def inpainting_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion made for inpainting, as a folder in diffusers' format."""
    from tests.diffusion.tiny import inpainting_pipeline

    folder = tmp_path_factory.mktemp("base") / "painting-base"
    inpainting_pipeline().save_pretrained(folder)
    return folder


def shrink_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the embedded base be fine-tuned in a few steps and sampled in two."""
    from inandout.diffusion.finetune import presets as training
    from inandout.diffusion.sample import config as sampling
    from inandout.diffusion.sample import presets as drawing

    for kind, shot, mode in drawing.DRAWING_PRESETS:
        if kind == "embedded":
            words = ("cracked", "scratched") if shot == "zero" else ("",)
            strength = drawing.Strength(0.6, 2.0)
            monkeypatch.setitem(training.PRESETS, (kind, shot), training.Preset(1, 1e-3, 3))
            monkeypatch.setitem(
                drawing.DRAWING_PRESETS, (kind, shot, mode), drawing.DrawingPreset(strength, strength, words)
            )
    monkeypatch.setitem(sampling._DEFAULTS, "embedded", {"guidance": 2.0, "steps": 2, "scheduler": "dpm++"})


def pointer_to(run_id: str) -> str:
    """Id of a run as `mlflow run` leaves it where a stage was reused: its result lies elsewhere."""
    import mlflow

    with mlflow.start_run() as run:
        mlflow.set_tag("inandout.reused", run_id)
    return run.info.run_id


def start(*arguments: str) -> "subprocess.Popen[str]":
    """`python -m inandout ...` in the current folder, as another process with as many threads as this one."""
    command = [sys.executable, "-m", "inandout", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

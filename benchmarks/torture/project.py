"""A very small project that is copied for every attempt, and what can be compared of it afterwards."""

import hashlib
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.torture.forked import apart, run
from inandout.data.images import write_image
from inandout.data.manifest import Sample, write_manifest
from tests.diffusion.tiny import tiny_pipeline

SIZE = ["--width", "32", "--height", "32"]
FIT = [*SIZE, "--data", "data/parts.csv", "--backbone", "resnet18", "--epochs", "2", "--batch-size", "8"]
TUNE = [*SIZE, "--data", "data/parts.csv", "--base", "base"]
ADAPTER = [*TUNE, "--epochs", "2", "--n-prior", "2", "--repeats", "1", "--n-negatives", "3", "--batch-size", "4"]
_IDENTIFIERS = re.compile(rb"\bm-[0-9a-f]{32}\b|\b[0-9a-f]{32}\b")
_VOLATILE = re.compile(r"seconds|system/|_ms$|_drawn$")
"""Metrics of the work of one process: time, and the images that it drew itself."""


def make_template(template: Path, folder: Path) -> None:
    """Make a project in `folder` with data, a base, a classifier, an adapter and a pool; move it to `template`.

    Copies belong into `folder`, because MLflow stores absolute paths.
    """
    write_data(folder / "data")
    apart(lambda: tiny_pipeline().save_pretrained(folder / "base"))
    pool = ["augment", *SIZE, "--data", "data/parts.csv", "--source", "memseg", "--n-aug", "4"]
    for command in (["classify", *FIT, "--n-aug", "0"], ["finetune", *ADAPTER], pool):
        ended = run(folder, command)
        assert ended.code == 0, ended.message
    folder.rename(template)


def write_data(folder: Path) -> None:
    """Write 30 parts: noisy grey squares, every third with a bright spot."""
    folder.mkdir(parents=True)
    samples = []
    for number in range(30):
        split, label = ("train", "val", "test")[number * 3 // 30], int(number % 3 == 0)
        rng = np.random.default_rng(number)
        image = rng.integers(80, 120, (32, 32, 1), dtype=np.uint8).repeat(3, axis=2)
        mask = np.zeros((32, 32), bool)
        if label:
            top, left = rng.integers(2, 24, 2)
            mask[top : top + 6, left : left + 6] = True
            image[mask] = 230
        paths = folder / f"{number}.png", folder / f"{number}_mask.png"
        write_image(paths[0], image)
        write_image(paths[1], mask)
        samples.append(Sample(image=paths[0], mask=paths[1], label=label, split=split, group=f"part {number}"))
    write_manifest(samples, folder / "parts.csv")


def restore(template: Path, project: Path) -> None:
    """Replace the project by the template."""
    if project.exists():
        shutil.rmtree(project)
    shutil.copytree(template, project)


def run_ids(project: Path, stage: str) -> list[str]:
    """Return the finished runs of a stage, oldest first."""
    query = (
        "SELECT runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid WHERE runs.status = 'FINISHED' "
        "AND tags.key = 'inandout.stage' AND tags.value = ? ORDER BY start_time"
    )
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        return [run_id for (run_id,) in database.execute(query, (stage,))]


def snapshot(project: Path) -> dict[str, str]:
    """Return digests of everything that a user gets: results of finished runs, files, versions, runs left open.

    Results are named by stage and fingerprint, because ids of runs are random; ids in their content are masked.
    """
    found = {
        str(path.relative_to(project)): _digest(path)
        for path in sorted(project.rglob("*"))
        if path.is_file()
        and path.relative_to(project).parts[0] not in ("mlruns", ".inandout")
        and not path.name.startswith("mlflow.db")
    }
    if not (project / "mlflow.db").exists():
        return found
    with closing(sqlite3.connect(project / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT runs.run_uuid, artifact_uri, stage.value, result.value FROM runs "
            "JOIN tags stage ON stage.run_uuid = runs.run_uuid AND stage.key = 'inandout.stage' "
            "JOIN tags result ON result.run_uuid = runs.run_uuid AND result.key = 'inandout.fingerprint' "
            "WHERE runs.status = 'FINISHED'"
        ).fetchall()
        for run_id, artifacts, stage, fingerprint in rows:
            name = f"{stage} {fingerprint[:8]}"
            if name in found:
                found[f"{name} twice"] = "a second finished run of the same result"
            found[name] = "finished"
            folder = Path(str(artifacts).removeprefix("file://"))
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    found[f"{name}/{path.relative_to(folder)}"] = _digest(path)
            metrics = database.execute("SELECT key, value FROM latest_metrics WHERE run_uuid = ?", (run_id,))
            found |= {f"{name} metric {key}": repr(value) for key, value in metrics if not _VOLATILE.search(key)}
        running = database.execute("SELECT COUNT(*) FROM runs WHERE status = 'RUNNING'").fetchone()
        versions = database.execute("SELECT name, version FROM model_versions").fetchall()
        aliases = database.execute("SELECT name, alias, version FROM registered_model_aliases").fetchall()
        found["runs left open"], found["versions"], found["aliases"] = repr(running), repr(versions), repr(aliases)
    state = project / ".inandout"
    leftovers = [
        str(path.relative_to(state))
        for path in sorted(state.rglob("*"))
        if ".tmp" in path.name or path.parent == state / "work"
    ]
    return found | {"leftovers": _mask(repr(leftovers).encode()).decode()}


def _digest(path: Path) -> str:
    return hashlib.sha256(_mask(path.read_bytes())).hexdigest()[:16]


def _mask(content: bytes) -> bytes:
    return _IDENTIFIERS.sub(b"ID", content)


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Return the names whose values differ, or that only one has."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))

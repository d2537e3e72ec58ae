"""The sdist and the wheel: complete, and usable from another folder."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import inandout

ROOT = Path(__file__).parents[1]
SOURCES = ("inandout", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
SMALL = [
    "--width",
    "32",
    "--height",
    "32",
    "--train-negatives",
    "12",
    "--train-positives",
    "6",
    "--test-negatives",
    "4",
]


def build(kind: str, project: Path, out: Path) -> Path:
    """Build the `sdist` or the `wheel` of a project without the network."""
    code = f"from setuptools.build_meta import build_{kind}; print(build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in an empty folder: sources to sdist to wheel. The dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "sources").mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "sources" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / "sources")
    with tarfile.open(build("sdist", folder / "sources", folder)) as file:
        file.extractall(folder, filter="data")
    wheel = build("wheel", folder / f"inandout-{inandout.__version__}", folder)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder / "site"),
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return folder / "site"


def run(installed: Path, folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package(installed: Path) -> None:
    def files(folder: Path) -> set[str]:
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        return {name for name in found if "__pycache__" not in name}

    assert files(installed / "inandout") == files(ROOT / "inandout")
    assert (installed / f"inandout-{inandout.__version__}.dist-info").is_dir()


@pytest.mark.slow
def test_commands_run_from_another_folder(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import inandout; print(inandout.__file__, inandout.__version__)")
    assert where == f"{installed / 'inandout' / '__init__.py'} {inandout.__version__}\n"
    assert "classify" in run(installed, tmp_path, str(installed / "bin" / "inandout"), "--help")
    run(installed, tmp_path, "-m", "inandout", "surfaces", *SMALL, "--out", "data")
    assert "12 negatives, 6 positives" in run(installed, tmp_path, "-m", "inandout", "check", "--data", "data")
    assert '"data": "data"' in run(installed, tmp_path, "-m", "inandout", "classify", "--data", "data", "--dry-run")

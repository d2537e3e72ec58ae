"""Command `doctor`: check the installation, the machine, the tracking store and the base model."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement

from inandout.errors import brief

_GB = 1e9
LEAST_MEMORY, LEAST_DISK = 2 * _GB, 2 * _GB
"""Bytes that the demo needs."""


class Finding(NamedTuple):
    """Result of one check."""

    name: str
    text: str
    fix: str = ""
    """What to do; "" = nothing is wrong."""
    needed: bool = True
    """Whether the package cannot work without the fix."""

    def line(self) -> str:
        """Return the line to print."""
        mark = "ok" if not self.fix else "wrong" if self.needed else "note"
        return f"{mark:6}{self.name:10}{self.text}" + (f"; {self.fix}" if self.fix else "")


def doctor(base: str) -> bool:
    """Print one line for each check; return whether everything needed is right."""
    right = True
    for finding in findings(base):
        print(finding.line(), flush=True)
        right &= not (finding.fix and finding.needed)
    return right


def findings(base: str) -> Iterator[Finding]:
    """Yield the result of each check; a check that fails unexpectedly is a finding itself."""
    checks: dict[str, Callable[[], Finding]] = {
        "python": _python, "libraries": _libraries, "torch": _torch, "memory": _memory, "disk": _disk, "store": _store,
        "base": lambda: _base(base),
    }  # fmt: skip
    for name, check in checks.items():
        try:
            yield check()
        except Exception as error:  # a broken library can raise anything
            yield Finding(name, brief(error), "install the package again, into a new environment")


def _python() -> Finding:
    fix = "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"
    return Finding("python", f"{platform.python_version()} at {sys.executable}, {platform.platform()}", fix)


def _libraries() -> Finding:
    """Compare installed versions with the requirements of the package."""
    wrong = []
    needed = [Requirement(line) for line in requires("inandout") or ()]
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = _installed(requirement.name)
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                wrong.append(f"{requirement.name} {found or 'missing'} (needs {requirement.specifier})")
    shown = ", ".join(f"{name} {_installed(name)}" for name in ("inandout", "torch", "diffusers", "mlflow"))
    fix = f"pip install --upgrade inandout; wrong: {', '.join(wrong)}" if wrong else ""
    return Finding("libraries", shown, fix)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torch() -> Finding:
    """Describe the device that training uses, and its precisions."""
    import torch

    from inandout.hardware import HardwareConfig

    device, precision = HardwareConfig().open()
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / _GB
        name = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(device)}"
        return Finding("device", f"{name}, {memory:.0f} GB; precision=auto is {precision}")
    text = f"CPU, {torch.get_num_threads()} threads; precision=auto is {precision}"
    if shutil.which("nvidia-smi"):
        return Finding(
            "device", text, f"torch {torch.__version__} does not see the GPU; install a build for its driver", False
        )
    return Finding("device", text)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    fix = "" if memory.available >= LEAST_MEMORY else f"free memory up to {LEAST_MEMORY / _GB:.0f} GB"
    return Finding("memory", f"{memory.available / _GB:.1f} of {memory.total / _GB:.1f} GB available", fix)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    fix = "" if free >= LEAST_DISK else f"free {LEAST_DISK / _GB:.0f} GB, or work in another folder"
    return Finding("disk", f"{free / _GB:.1f} GB free in {Path.cwd()}", fix)


def _store() -> Finding:
    """Open the tracking store without creating it."""
    import mlflow

    from inandout.tracking.database import database_path

    uri = mlflow.get_tracking_uri()
    file = database_path(uri)
    if file and not file.exists():
        folder = file.resolve().parent
        fix = "" if os.access(folder, os.W_OK) else f"{folder} is not writable; set MLFLOW_TRACKING_URI"
        return Finding("store", f"{uri}, created by the first run", fix)
    try:
        experiments = mlflow.MlflowClient().search_experiments()
    except Exception as error:  # MLflow raises errors of its own, of the database and of the network
        return Finding("store", f"{uri}: {brief(error)}", f"run `mlflow db upgrade {uri}`, or set MLFLOW_TRACKING_URI")
    return Finding("store", f"{uri}, {len(experiments)} experiments")


def _base(base: str) -> Finding:
    """Check the files of the base without loading them."""
    from inandout.diffusion.base.config import BaseConfig
    from inandout.diffusion.base.identity import base_identity
    from inandout.errors import InputError

    try:
        identity = base_identity(BaseConfig(base=base))
    except InputError as error:
        return Finding("base", base, str(error))
    return Finding("base", f"{base}, {identity}")

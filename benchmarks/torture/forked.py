"""Run a command of the package in a forked process, so that its imports are paid once."""

import contextlib
import importlib
import json
import os
import pkgutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT = 300.0
"""Seconds until a command counts as hanging."""
SETTINGS = {
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false", "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "PYTHONWARNINGS": "ignore", "GIT_PYTHON_REFRESH": "quiet",
    "CUDA_VISIBLE_DEVICES": "", "MLFLOW_DISABLE_TELEMETRY": "true",
}  # fmt: skip


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    """Exit status, negative for a signal."""
    message: str
    """What it wrote to stderr."""
    seconds: float


def warm_up() -> None:
    """Import every module, with one thread, because threads do not survive a fork."""
    os.environ |= SETTINGS | {"OMP_NUM_THREADS": "1"}
    import torch

    import inandout

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(inandout.__path__, "inandout."):
        if not module.name.endswith(("__main__", "model_code")):
            importlib.import_module(module.name)
    for name in ("matplotlib.pyplot", "torchvision.models", "onnxruntime", "onnxscript", "sklearn.metrics"):
        importlib.import_module(name)


class Command:
    """A running command; `folder` is its working directory."""

    def __init__(self, folder: Path, arguments: Sequence[str], prepare: Callable[[], None] = lambda: None) -> None:
        self.log = Path(tempfile.gettempdir()) / f"torture.{os.getpid()}.{time.monotonic_ns()}.log"
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _run(folder, arguments, self.log, prepare)

    def wait(self, limit: float = TIMEOUT) -> Ended | None:
        """Return how the command ended, or None if it still runs after `limit` seconds."""
        until = time.monotonic() + limit
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)  # its workers
                seconds = time.monotonic() - self.started
                message = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
                self.log.unlink(missing_ok=True)
                return Ended(os.waitstatus_to_exitcode(status), message, seconds)
            if time.monotonic() > until:
                return None
            time.sleep(0.002)

    def kill(self) -> Ended:
        """Kill the command and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        ended = self.wait()
        assert ended is not None
        return ended


def run(folder: Path, arguments: Sequence[str], prepare: Callable[[], None] = lambda: None) -> Ended:
    """Run a command to its end; one that hangs is killed and has the code -9."""
    command = Command(folder, arguments, prepare)
    return command.wait() or command.kill()


def apart(work: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the JSON-compatible result of `work`, which runs in a forked process: it may start threads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        child = os.fork()
        if child == 0:
            try:
                path.write_text(json.dumps(work()))
            except BaseException:
                traceback.print_exc()
            os._exit(not path.exists())
        _, status = os.waitpid(child, 0)
        assert status == 0, "the work failed"
        result: dict[str, Any] | None = json.loads(path.read_text())
        return result


def _run(folder: Path, arguments: Sequence[str], log: Path, prepare: Callable[[], None]) -> None:
    """Be the child: run the command line, never return."""
    code = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.chdir(folder)
        from tqdm import tqdm

        from inandout.__main__ import main

        tqdm.set_lock(threading.RLock())  # the default is shared with processes that were killed while they held it
        prepare()
        main(list(arguments))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)

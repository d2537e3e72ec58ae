"""Out of memory: the run is closed, and the command line prints one sentence."""

from pathlib import Path

import mlflow
import pytest
import torch

from inandout.__main__ import main
from inandout.hardware import OutOfMemoryError
from inandout.tracking.runs import open_run
from inandout.tracking.store import connect

CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 7.79 GiB"


def test_a_run_that_is_out_of_memory_is_closed_as_failed(project: Path) -> None:
    connect()
    with (
        pytest.raises(OutOfMemoryError, match=r"out of memory .*20.00 GiB.*; reduce"),
        open_run("classify", {}, "f" * 32, "name") as run,
    ):
        raise torch.OutOfMemoryError(CUDA)
    assert mlflow.get_run(run.info.run_id).info.status == "FAILED"


@pytest.mark.parametrize(
    "error", [RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), MemoryError()]
)
def test_the_command_line_ends_with_status_2(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: object) -> None:
        raise error

    monkeypatch.setattr("inandout.stages.data.check", fail)
    with pytest.raises(SystemExit) as stop:
        main(["check"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory (") and "reduce" in line


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("inandout.stages.data.check", fail)
    with pytest.raises(RuntimeError, match="mat1"):
        main(["check"])

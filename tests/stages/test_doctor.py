"""`doctor`: one line for each check, with the fix where something is wrong."""

from collections import namedtuple
from pathlib import Path

import pytest

from inandout.__main__ import main
from inandout.stages import doctor as module

DISK = namedtuple("DISK", "total used free")


def doctor(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *arguments])
    return stop.value.code


def test_nothing_is_wrong_here(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor() == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[1] for line in lines]
    assert names == ["python", "libraries", "device", "memory", "disk", "store", "base"]
    assert all(line.startswith("ok") for line in lines)


def test_a_wrong_line_has_the_fix_and_the_exit_code_is_1(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: DISK(10, 9, 1))
    monkeypatch.setattr(module, "requires", lambda name: ["numpy<1", "nothing-of-this-name>=2", "ray; extra == 'x'"])
    assert doctor("--base", "nowhere") == 1
    wrong = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith("wrong")}
    assert wrong.keys() == {"libraries", "disk", "base"}
    assert "nothing-of-this-name missing (needs >=2)" in wrong["libraries"]
    assert "free 2 GB, or work in another folder" in wrong["disk"]
    assert f"no such folder in {project}; base must be" in wrong["base"]


def test_a_store_that_cannot_be_opened_is_wrong_and_a_missing_one_is_not(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "mlflow.db").write_text("not a database " * 100)
    assert "mlflow db upgrade" in module._store().fix
    (project / "mlflow.db").unlink()
    assert module._store().text.endswith("created by the first run")
    assert not (project / "mlflow.db").exists()

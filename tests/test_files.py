import os
import subprocess
import sys
from pathlib import Path

import pytest

from inandout.files import replacing


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.[b].csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_dead_processes_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    path, dead = tmp_path / "data", subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with replacing(path) as temporary:
        temporary.write_text("new")
    name = temporary.name.removesuffix(f".{os.getpid()}.tmp")
    gone, alive, other = (tmp_path / f"{name}.{pid}.tmp" for pid in (dead.pid, os.getppid(), "part"))
    gone.mkdir()
    (gone / "1.png").touch()
    alive.touch()
    other.touch()
    elsewhere = tmp_path / f".data.another-machine.{dead.pid}.tmp"
    elsewhere.touch()
    with replacing(path) as temporary:
        temporary.write_text("newer")
    assert set(tmp_path.iterdir()) == {path, alive, other, elsewhere}

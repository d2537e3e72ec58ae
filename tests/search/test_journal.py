from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from inandout.search.journal import DurableJournal


def study_in(path: Path) -> optuna.Study:
    storage = JournalStorage(DurableJournal(path))
    return optuna.create_study(study_name="s", storage=storage, direction="maximize", load_if_exists=True)


def values(path: Path) -> list[float | None]:
    return [trial.value for trial in study_in(path).trials]


def run(study: optuna.Study, count: int) -> None:
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=count)


DAMAGE = {
    "half line": b'{"op_code":6,"worker_id":"a","tri',
    "half line and more": b'{"op_code":6,"worker_id"\n',
    "blank lines": b"\n\n  \n",
    "zeros": b"\0" * 700,
    "zeros and a line end": b"\0" * 700 + b"\n",
    "no entry": b'[1]\n"x"\n{"a":1}\n',
    "no text": b"\xff\xfe\x80\n",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_journal_with_damaged_lines_goes_on(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "s.log"
    study = study_in(path)
    run(study, 2)
    first = values(path)
    with path.open("ab") as file:
        file.write(damage)
    assert values(path) == first
    run(study_in(path), 1)
    run(study, 1)  # a process that opened the journal before
    assert len(values(path)) == 4
    assert values(path)[:2] == first
    assert all(trial.state == TrialState.COMPLETE for trial in study_in(path).trials)


def test_an_entry_after_a_half_line_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.log"
    run(study_in(path), 1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-1], lines[-1][:9], lines[-1]]))
    assert len([value for value in values(path) if value is not None]) == 1


def test_a_failed_write_leaves_the_journal_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.log"
    study = study_in(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("inandout.search.journal.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            study.ask()
    assert path.read_bytes() == before
    run(study, 1)
    assert len(values(path)) == 1

from pathlib import Path

import mlflow
import pytest

from inandout.errors import InputError
from inandout.stages.clean import clean
from inandout.stages.config import CleanConfig
from inandout.tracking.store import connect


def test_clean_lists_and_removes_what_no_finished_run_needs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connect()
    state = project / ".inandout"
    removable = [state / name for name in ("work/a/checkpoint", "generated/b/1.png", "latents/c/1.safetensors")]
    kept = [
        state / name for name in ("review/d/decisions.jsonl", "studies/e.log", "prompt_lab/f/1.png", "locks/g.lock")
    ]
    for path in [*removable, *kept]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1_000_000)
    clean(CleanConfig())
    shown = capsys.readouterr().out
    assert "3.0 MB in total; remove them with `python -m inandout clean --remove true`" in shown
    assert all(str(path.parent) in shown for path in removable)
    assert all(path.exists() for path in [*removable, *kept])
    with mlflow.start_run(), pytest.raises(InputError, match="is running and may use these files"):
        clean(CleanConfig(remove=True))
    assert all(path.exists() for path in removable)
    clean(CleanConfig(remove=True))
    assert not any(path.exists() for path in removable)
    assert all(path.exists() for path in kept)
    clean(CleanConfig())
    assert "nothing to remove" in capsys.readouterr().out

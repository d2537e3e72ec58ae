import errno
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from inandout.entry_points import STAGES
from inandout.errors import InputError, explain
from inandout.options import StageConfig
from inandout.processes import this_process
from inandout.tracking import logging, runs, store
from inandout.tracking.descriptions import DESCRIPTIONS, description_tag


class Config(StageConfig):
    data: str = "somewhere"
    alpha: float = 0.5
    fresh: bool = False


def test_only_a_finished_run_is_found(project: Path) -> None:
    store.connect()
    assert runs.find_finished("key") is None
    with pytest.raises(ZeroDivisionError), runs.open_run("s", Config().flat(), "key", "broken"):
        _ = 1 / 0
    assert runs.find_finished("key") is None
    with runs.open_run("s", Config().flat(), "key", "good") as run:
        pass
    found = runs.find_finished("key")
    assert found is not None
    assert found.info.run_id == run.info.run_id
    assert found.data.params["alpha"] == "0.5"
    assert json.loads((runs.artifact_folder(run.info.run_id, "config.json")).read_text())["alpha"] == 0.5


@pytest.mark.parametrize(
    ("error", "status"),
    [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_failed_run_is_closed(project: Path, error: type[BaseException], status: str) -> None:
    store.connect()
    with pytest.raises(error), runs.open_run("s", Config().flat(), "key", "name") as run:
        raise error
    assert mlflow.get_run(run.info.run_id).info.status == status
    assert mlflow.active_run() is None


def test_only_runs_of_dead_processes_are_closed(project: Path) -> None:
    store.connect()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(store.EXPERIMENT)
    assert experiment is not None
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    *here, pid, started = json.loads(this_process())
    processes = {
        "gone": [*here, dead.pid, started],
        "alive": [*here, pid, started],
        "another process with our number": [*here, pid, 1],
        "elsewhere": ["another-host", *here[1:], dead.pid, started],
        "another container": [*here[:3], "pid:[1]", dead.pid, started],
        "another start of a container": [*here[:2], "boot", "pid:[1]", dead.pid, started],
        "an older version": [here[0], dead.pid, 1.0],
        "junk": "junk",
        "more junk": [*here, "pid", None],
    }
    runs = {
        name: client.create_run(experiment.experiment_id, tags={"inandout.process": json.dumps(process)})
        for name, process in processes.items()
    }
    store.connect()
    status = {name: client.get_run(run.info.run_id).info.status for name, run in runs.items()}
    assert status == {
        name: "KILLED" if name in ("gone", "another process with our number") else "RUNNING" for name in processes
    }


def test_the_state_folder_is_next_to_the_database(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.state_folder() == project / ".inandout"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store.state_folder() == Path(".inandout")


def test_a_run_of_mlflow_run_is_resumed_without_parameter_conflicts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.connect()
    experiment = mlflow.get_experiment_by_name(store.EXPERIMENT)
    run = mlflow.MlflowClient().create_run(experiment.experiment_id)
    mlflow.MlflowClient().log_param(run.info.run_id, "alpha", ".5")
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment.experiment_id)
    store.connect()
    with runs.open_run("s", Config().flat(), "key", "name") as resumed:
        assert resumed.info.run_id == run.info.run_id
    params = mlflow.get_run(run.info.run_id).data.params
    assert params == {"alpha": ".5", "data": "somewhere", "fresh": "False"}


def test_a_reused_stage_of_mlflow_run_refers_to_its_result(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.connect()
    with runs.open_run("s", Config().flat(), "key", "name") as original:
        mlflow.log_text("of the result", "weights.txt")
    found = runs.find_finished("key")
    assert found is not None
    reusing = mlflow.MlflowClient().create_run(original.info.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", reusing)
    runs.record_reuse("s", Config().flat(), found)
    for run_id in (original.info.run_id, reusing):
        assert runs.artifact_folder(run_id, "weights.txt").read_text() == "of the result"
        assert runs.artifact_names(run_id) == {"config.json", "weights.txt"}
        assert runs.find_run(run_id).info.run_id == original.info.run_id
    assert mlflow.get_run(reusing).data.metrics == found.data.metrics


def test_proxied_artifacts_raise_an_error_with_a_fix(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.create_experiment("made by the ui", artifact_location="mlflow-artifacts:/0")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "made by the ui")
    store.connect()
    refused = pytest.raises(InputError, match="--experiment-name inandout")
    with refused, runs.open_run("s", Config().flat(), "k", "n"):
        pass


def test_a_stage_lock_has_one_holder(project: Path) -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with store.stage_lock("key", fresh=False):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with store.stage_lock("key", fresh=False) as folder:
        assert folder.is_dir()
        inside.set()
        thread.join(timeout=0.5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert not folder.exists(), "the folder of a finished result is deleted"
    with pytest.raises(ZeroDivisionError), store.stage_lock("key", fresh=False) as folder:
        _ = 1 / 0
    assert folder.exists(), "the folder of a failed result is kept to resume from"
    (folder / "half").touch()
    with store.stage_lock("key", fresh=True) as folder:
        assert not list(folder.iterdir()), "a fresh run does not resume"


@pytest.mark.slow
def test_sigterm_ends_a_run_as_killed(project: Path) -> None:
    code = (
        "import inandout.__main__ as m, time\n"
        "from types import SimpleNamespace\n"
        "from inandout.tracking import runs, store\n"
        "from inandout.options import StageConfig\n"
        "class C(StageConfig):\n    data: str = ''\n"
        "def work(config):\n"
        "    store.connect()\n"
        "    with runs.open_run('s', config.flat(), 'k', 'n') as run:\n"
        "        print(run.info.run_id, flush=True)\n"
        "        time.sleep(60)\n"
        "m.STAGES = {'work': SimpleNamespace(config=C, run=work, summary='', plan_location='')}\n"
        "m.main(['work'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    process.stdout.close()
    assert mlflow.get_run(run_id).info.status == "KILLED"


def test_means_are_logged_in_groups_and_the_rest_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[int | None, dict[str, float]]] = []
    monkeypatch.setattr(logging, "log_values", lambda values, step=None: logged.append((step, dict(values))))
    on_step = logging.mean_logger(2, "x_")
    for step, values in enumerate([{"a": 1.0}, {"a": 2.0, "b": 5.0}, {"a": 7.0, "progress": 1.0}], start=1):
        on_step(step, values)
    assert logged == [(2, {"x_a": 1.5, "x_b": 5.0}), (3, {"x_a": 7.0, "x_progress": 1.0})]


def test_every_stage_has_a_description() -> None:
    """The stages are the first arguments of `Identity` and `open_run` in the code."""
    stages = Path(runs.__file__).parents[1] / "stages"
    text = "".join(path.read_text(encoding="utf-8") for path in stages.rglob("*.py"))
    assert set(re.findall(r'(?:Identity|open_run)\(\s*"([a-z-]+)"', text)) == DESCRIPTIONS.keys()


def test_a_description_says_what_to_look_at_and_how_to_run_it_again(project: Path) -> None:
    store.connect()
    with runs.open_run("classify", {"data": "d"}, "key", "name") as run:
        pass
    lines = mlflow.get_run(run.info.run_id).data.tags["mlflow.note.content"].split("\n\n")
    assert len(lines) == 3
    assert lines[1].startswith("Look at `pr_curve.png`")
    assert f"python -m inandout classify --config run:{run.info.run_id}" in lines[2]


def test_the_commands_in_the_descriptions_exist() -> None:
    texts = [text for stage in DESCRIPTIONS for text in description_tag(stage, "id").values()]
    commands = {command for text in texts for command in re.findall("python -m inandout ([a-z-]+)", text)}
    assert {"label-errors", "probe-shortcut", "classify"} <= commands <= STAGES.keys()


def test_system_metrics_are_logged_but_not_copied_to_a_run_that_reuses(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    store.connect()
    with runs.open_run("classify", {"data": "d"}, "key", "name") as run:
        time.sleep(0.5)
    found = mlflow.get_run(run.info.run_id)
    assert found.data.metrics.keys() >= {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"}
    reusing = mlflow.start_run().info.run_id
    mlflow.end_run()
    monkeypatch.setenv("MLFLOW_RUN_ID", reusing)
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    runs.record_reuse("classify", {"data": "d"}, found)
    assert mlflow.get_run(reusing).data.metrics.keys() == {"seconds"}


def test_a_result_whose_artifacts_were_removed_is_computed_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.connect()
    with runs.open_run("augment", {}, "f" * 32, "name") as run:
        mlflow.log_text("one", "pool/1.txt")
        mlflow.log_text("two", "pool/2.txt")
    found = runs.find_finished("f" * 32)
    assert found is not None
    assert found.info.run_id == run.info.run_id
    files = [path for path in Path(run.info.artifact_uri.removeprefix("file://")).rglob("*") if path.is_file()]
    files[0].unlink()
    assert runs.find_finished("f" * 32) is None
    assert f"run {run.info.run_id} has this result, but files are missing" in capsys.readouterr().err


def test_a_run_whose_end_the_store_refuses_is_closed_and_its_parent_is_not(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.connect()
    accepts = mlflow.MlflowClient.set_terminated
    refused: list[object] = []

    def refuse_once(client: mlflow.MlflowClient, *given: Any, **named: Any) -> None:
        if not refused:
            refused.append(given)
            raise mlflow.MlflowException("database is locked")
        accepts(client, *given, **named)

    with mlflow.start_run() as parent:
        monkeypatch.setattr(mlflow.MlflowClient, "set_terminated", refuse_once)
        with (
            pytest.raises(mlflow.MlflowException, match="locked"),
            runs.open_run("s", Config().flat(), "k", "n") as run,
        ):
            pass
        assert mlflow.get_run(run.info.run_id).info.status == "FAILED"
        assert mlflow.get_run(parent.info.run_id).info.status == "RUNNING"


def test_a_run_is_closed_on_a_full_disk_and_the_message_is_one_sentence(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store accepts the last entry of a run only after the reserve is freed."""
    store.connect()
    reserve = project / ".inandout" / "reserve"
    assert reserve.stat().st_size == 256 * 1024
    full = OSError(errno.ENOSPC, "No space left on device", "model.bin")

    def refuse(status: str = "") -> None:
        raise mlflow.MlflowException("(sqlite3.OperationalError) database or disk is full")

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="No space left") as failure,
        runs.open_run("s", Config().flat(), "k", "n") as run,
    ):
        patch.setattr(mlflow, "end_run", refuse)
        raise full
    assert explain(failure.value) == (
        "the disk is full (OSError: [Errno 28] No space left on device: 'model.bin'); free some space and run the same "
        "command again, which resumes"
    )
    assert mlflow.get_run(run.info.run_id).info.status == "FAILED"
    assert not reserve.exists()


def test_temporary_files_of_a_killed_attempt_are_removed_by_the_next(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    before = tempfile.gettempdir()
    left = project / "work" / "tmp" / "model" / "data.bin"
    left.parent.mkdir(parents=True)
    left.touch()
    with logging.temporary_files_in(project / "work" / "tmp"):
        assert not left.exists()
        assert Path(tempfile.mkdtemp()).parent == project / "work" / "tmp"
    assert tempfile.gettempdir() == before
    assert not (project / "work" / "tmp").exists()
    monkeypatch.setenv("TMPDIR", before)
    with logging.temporary_files_in(project / "work" / "tmp"):
        assert tempfile.gettempdir() == before


def test_logging_that_is_not_finished_when_it_is_read_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    with pytest.raises(InputError, match=r"MLFLOW_ENABLE_ASYNC_LOGGING = true: .*; unset it"):
        store.connect()

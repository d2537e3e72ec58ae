"""MLflow: opening, finding, logging and closing runs. Nothing else in the package knows MLflow but `stages`."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import mlflow
from filelock import FileLock
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run
from pydantic import BaseModel

import inandout
from inandout.data.manifest import Sample, write_manifest
from inandout.errors import InputError
from inandout.processes import is_dead, this_process

EXPERIMENT = "inandout"
"""Experiment of runs that are started without one."""
WEIGHTS = "classifier.safetensors"
"""Artifact of a `classify` run with the ResNet-50's state dict, which its `weights` takes, too: a `pt2` can neither be
trained on nor looked into."""
STAGE = "inandout.stage"
"""Tag of a run: the entry point that opened it."""
FINGERPRINT = "inandout.fingerprint"
"""Tag of a finished run: identity of its result, see `stage_fingerprint`."""
_PROCESS, _REUSED = (f"inandout.{name}" for name in ("process", "reused"))


class RunLocation(NamedTuple):
    """Where the runs of this process go, for another process that works for it."""

    store: str
    """Address of the tracking store."""
    folder: str
    """Working folder, which paths may be relative to."""
    experiment_id: str
    run_id: str
    """The run that those of the other process are below."""


_LOCATION: ContextVar[RunLocation | None] = ContextVar("place", default=None)


def run_location() -> RunLocation:
    """Of the active run."""
    run = mlflow.active_run()
    assert run is not None
    return RunLocation(mlflow.get_tracking_uri(), str(Path.cwd()), run.info.experiment_id, run.info.run_id)


@contextmanager
def nested_under(location: RunLocation) -> Iterator[None]:
    """Runs that are opened in here are below the run of `location`, whichever process and machine this is.

    Raises:
        InputError: this machine has not the working folder.
    """
    try:
        os.chdir(location.folder)
    except OSError as error:
        raise InputError(f"{location.folder}: is not on every machine; start from a folder that all share") from error
    if mlflow.get_tracking_uri() != location.store:
        mlflow.set_tracking_uri(location.store)
    token = _LOCATION.set(location)
    try:
        yield
    finally:
        _LOCATION.reset(token)


def stage_fingerprint(stage: str, config: BaseModel, inputs: Mapping[str, str]) -> str:
    """Identity of a result: what was asked for, the content of what went in, and the code that made it.

    `inputs` maps a name to the fingerprint of its content; fields that only say where an input lies or whether to
    reuse results do not count.
    """
    asked = config.model_dump(mode="json", exclude={"fresh", *inputs})
    text = json.dumps([stage, asked, dict(inputs), code_fingerprint()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def code_fingerprint() -> str:
    """Identity of the package's source when this process began: no result of older code is taken for one of today's."""
    folder = Path(inandout.__file__).parent
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]


def current_commit() -> str:
    """Git commit of the code, as MLflow found it for the active run; "" if it found none, or there is no run."""
    run = mlflow.active_run()
    return str(run.data.tags.get("mlflow.source.git.commit", "")) if run else ""


class StageConfig(Protocol):
    """What a configuration needs to be run as a stage."""

    @property
    def data(self) -> str:
        """Name of the data set."""

    @property
    def fresh(self) -> bool:
        """Whether to run again although the result is known."""


def run_stage(
    stage: str,
    name: str,
    config: StageConfig,
    inputs: Mapping[str, str],
    samples: Sequence[Sample],
    work: Callable[[Path], None],
) -> Run:
    """The finished run that holds a result: found, where it was made before, or made now.

    Args:
        stage: entry point.
        name: what the run is called in the UI.
        config: a pydantic model.
        inputs: fingerprints by name, `data` among them; see `stage_fingerprint`.
        samples: the data set, to be logged.
        work: makes and logs the result. Its folder is its own while it runs; it goes when all went well, and stays with
            what a resume needs when it did not.
    """
    assert isinstance(config, BaseModel)
    key = stage_fingerprint(stage, config, inputs)
    with stage_lock(key, config.fresh) as folder:
        found = None if config.fresh else find_finished(key)
        if found is not None:
            record_reuse(stage, config, found)
            return found
        with open_run(stage, config, key, name) as run:
            log_dataset(config.data, inputs["data"], samples)
            work(folder)
    print(f"{stage}: run {run.info.run_id}", file=sys.stderr)
    return mlflow.get_run(run.info.run_id)


def state_folder() -> Path:
    """Where locks and the work of unfinished runs lie: beside the database, or in the working folder for a server."""
    uri = mlflow.get_tracking_uri()
    return (Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else Path()) / ".inandout"


@contextmanager
def stage_lock(fingerprint: str, fresh: bool) -> Iterator[Path]:
    """The work folder of one result, held by one process at a time; a second one waits and then finds the result.

    With `fresh` nothing that an unfinished run left there is used.
    """
    folder = state_folder() / "work" / fingerprint
    locks = state_folder() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{fingerprint}.lock")
    if lock_is_taken(lock):
        print("another process is working on the same result; waiting for it", file=sys.stderr)
    with lock:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        shutil.rmtree(folder)


def lock_is_taken(lock: FileLock) -> bool:
    """Whether another process holds the lock at this moment."""
    try:
        with lock.acquire(timeout=0):
            return False
    except TimeoutError:
        return True


def connect() -> None:
    """Prepare the tracking store and choose the experiment; safe for any number of processes on a fresh store.

    MLflow's own first use of a database is not: of several processes all but one fail. Runs whose process is gone are
    closed as KILLED.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it fills a screen for a hundred images
    state = state_folder()
    state.mkdir(parents=True, exist_ok=True)
    with FileLock(state / "store.lock"):
        client = mlflow.MlflowClient()
        experiments = client.search_experiments()
        if "MLFLOW_RUN_ID" not in os.environ and mlflow.active_run() is None and _LOCATION.get() is None:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
        elif "MLFLOW_RUN_ID" in os.environ:
            client.set_tag(os.environ["MLFLOW_RUN_ID"], _PROCESS, this_process())
        for run in client.search_runs([e.experiment_id for e in experiments], "attributes.status = 'RUNNING'"):
            if is_dead(run.data.tags.get(_PROCESS, "")):
                client.set_terminated(run.info.run_id, "KILLED")


def current_experiment() -> str:
    """Id of the experiment that a run opened now goes to; call `connect` before."""
    client, active, location = mlflow.MlflowClient(), mlflow.active_run(), _LOCATION.get()
    if active is not None:
        return active.info.experiment_id
    if location is not None:
        return location.experiment_id
    if "MLFLOW_RUN_ID" in os.environ:
        return client.get_run(os.environ["MLFLOW_RUN_ID"]).info.experiment_id
    found = client.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
    assert found is not None, "connect() makes it"
    return found.experiment_id


@contextmanager
def open_run(
    stage: str, config: BaseModel, fingerprint: str, name: str, run_id: str | None = None
) -> Iterator[Run]:  # fmt: skip
    """A run of one stage, below the active one, or that of `nested_under`; closed as FINISHED, FAILED or KILLED.

    Under `mlflow run` the first run opened is the one that was started from outside. With `run_id` that one goes on.
    """
    active, location = mlflow.active_run(), _LOCATION.get()
    experiment, parent = (location.experiment_id, location.run_id) if location and not active else (None, None)
    run = mlflow.start_run(
        run_id, run_name=name, nested=active is not None, experiment_id=experiment, parent_run_id=parent
    )  # fmt: skip
    try:
        _refuse_proxied_artifacts(run)
        mlflow.set_tags({STAGE: stage, _PROCESS: this_process(), "inandout.code": code_fingerprint()})
        log_config(config)
        started = time.monotonic()
        yield run
        mlflow.log_metric("seconds", time.monotonic() - started)
        mlflow.set_tag(FINGERPRINT, fingerprint)
    except (KeyboardInterrupt, SystemExit):
        mlflow.end_run("KILLED")
        raise
    except BaseException:
        mlflow.end_run("FAILED")
        raise
    mlflow.end_run()


def find_finished(fingerprint: str) -> Run | None:
    """The newest finished run with this fingerprint, in any experiment."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"tags.`{FINGERPRINT}` = '{fingerprint}' and attributes.status = 'FINISHED'"
    runs = client.search_runs(experiments, wanted, order_by=["attributes.end_time DESC"], max_results=1)
    return runs[0] if runs else None


def record_reuse(stage: str, config: BaseModel, found: Run) -> None:
    """Say that `found` is the result.

    A run that `mlflow run` opened for this stage gets the metrics of the found one and a pointer to it.
    """
    print(f"{stage}: reused run {found.info.run_id}", file=sys.stderr)
    if "MLFLOW_RUN_ID" in os.environ and mlflow.active_run() is None:
        with mlflow.start_run():
            mlflow.set_tags({STAGE: stage, _REUSED: found.info.run_id})
            log_config(config)
            mlflow.log_metrics(found.data.metrics)


def find_run(run_id: str) -> Run:
    """The run that holds the result of the run with this id; see `original_run`."""
    return original_run(mlflow.get_run(run_id))


def original_run(run: Run) -> Run:
    """The run that holds a result: this one, or the one that it was found in."""
    reused = run.data.tags.get(_REUSED)
    return mlflow.get_run(reused) if reused else run


def log_config(config: BaseModel) -> None:
    """The whole resolved configuration, as `config.json` and as parameters.

    `mlflow run` has logged the parameters it was given already, as they were typed; those cannot be written twice.
    """
    values = config.model_dump(mode="json")
    mlflow.log_dict(values, "config.json")
    active = mlflow.active_run()
    assert active is not None
    known = mlflow.get_run(active.info.run_id).data.params
    mlflow.log_params({key: value for key, value in values.items() if key not in known})


def artifact_folder(run_id: str, name: str) -> Path:
    """Local copy, or the original where it is local, of an artifact of `find_run`."""
    try:
        where = find_run(run_id).info.artifact_uri  # by run id MLflow copies local files, too, and keeps them
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{where}/{name}"))
    except (mlflow.MlflowException, OSError) as error:
        raise InputError(f"{run_id}: no run with an artifact {name!r} ({error})") from error


def read_config(run_id: str) -> dict[str, Any]:
    """What `log_config` wrote for the run of `find_run`."""
    config: dict[str, Any] = json.loads(artifact_folder(run_id, "config.json").read_text(encoding="utf-8"))
    return config


def artifact_names(run_id: str) -> set[str]:
    """What lies at the top of the artifacts of `find_run`."""
    return {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(find_run(run_id).info.run_id)}


def pip_requirements() -> list[str]:
    """What a logged classifier needs to be loaded."""
    return [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "torchvision", "numpy")]


def _refuse_proxied_artifacts(run: Run) -> None:
    """A store that `mlflow ui` made first gives its Default experiment an address that only a server can write to."""
    proxied = (run.info.artifact_uri or "").startswith("mlflow-artifacts:")
    if proxied and not mlflow.get_tracking_uri().startswith("http"):
        raise InputError(
            "this experiment was made by `mlflow ui` and stores artifacts through a server; add "
            f"`--experiment-name {EXPERIMENT}` to mlflow run, or set MLFLOW_EXPERIMENT_NAME"
        )


def log_values(values: Mapping[str, float], step: int | None = None) -> None:
    """Metrics of one step in one call, which a busy store takes far better than one by one."""
    mlflow.log_metrics(dict(values), step=step)


def mean_logger(every: int, prefix: str = "") -> Callable[[int, dict[str, float]], None]:
    """An `on_step` that logs the mean of every `every` steps, and of what is left when `progress` is 1.

    A value that only some steps have is averaged over those.
    """
    gathered: list[dict[str, float]] = []

    def on_step(step: int, values: dict[str, float]) -> None:
        gathered.append(values)
        if step % every == 0 or values.get("progress") == 1:
            names = dict.fromkeys(name for each in gathered for name in each)
            known = {name: [each[name] for each in gathered if name in each] for name in names}
            log_values({prefix + name: sum(each) / len(each) for name, each in known.items()}, step=step)
            gathered.clear()

    return on_step


def log_dataset(name: str, fingerprint: str, samples: Sequence[Sample]) -> None:
    """The data set as an MLflow input with its fingerprint, and its rows as `manifest.csv`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.csv"
        write_manifest(samples, path)
        mlflow.log_artifact(str(path))
    source = CodeDatasetSource(tags={"manifest": "manifest.csv"})
    dataset = MetaDataset(source, name=Path(name).name[:100], digest=fingerprint)  # type: ignore[abstract]  # it is concrete
    mlflow.log_input(dataset, context="training")


def experiment_url(run: Run) -> str:
    """How to look at what was logged: images as files, runs in the UI."""
    uri = mlflow.get_tracking_uri()
    page = f"#/experiments/{run.info.experiment_id}/runs?workflowType=machine_learning"
    served = uri.startswith("http")
    compare = f"{uri}/{page}" if served else f"mlflow ui --backend-store-uri {uri}"
    images = f"images: below {run.info.artifact_uri} and in the folders of the runs beside it"
    then = [] if served else [f"          then open http://127.0.0.1:5000/{page}"]
    return "\n".join([images, f"compare:  {compare}", *then])

"""A search with a stub objective, for this process and for subprocesses."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Run

from inandout.data.manifest import Sample
from inandout.data.prepare import CheckedData
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.search.config import SearchConfig
from inandout.stages.search.finalists import FinalReport
from inandout.stages.search.validation_set import ValidationSet
from inandout.tracking.runs import open_run
from inandout.tracking.store import RunLocation

MODULE = "inandout.stages.search.run"
OTHER = """
import sys
from tests.search.stub import MODULE, config, install
from inandout.stages.search.run import search
install(lambda name, value: setattr(sys.modules[MODULE], name, value), deadly=int(sys.argv[3]))
search(config(sys.argv[1], n_trials=int(sys.argv[2])))
"""


def config(data: str | Path, **changes: Any) -> SearchConfig:
    size = {"width": 32, "height": 32, "n_aug": 10, "val_share": 0.3}
    return SearchConfig.from_flat(**{"data": str(data)} | size | {"seeds": "0,1", "fresh_seeds": "7"} | changes)


def hill(config: ClassifyConfig) -> float:
    assert config.alpha is not None
    return 0.8 - (config.alpha - 0.7) ** 2 - (config.ddpm_ratio - 0.4) ** 2 + 0.001 * config.own_seed()


def install(
    patch: Callable[[str, object], None], value: Callable[[ClassifyConfig], float] = hill, deadly: int = -1
) -> list[ClassifyConfig]:
    """Replace training and generation, and return the list of requested configurations.

    Call number `deadly` kills the process.
    """
    requested: list[ClassifyConfig] = []

    def validate(config: ClassifyConfig, judged: Sequence[Sample], data: CheckedData) -> Run:
        requested.append(config)
        with open_run("validate", config.flat(), "", "stub") as run:
            mlflow.log_image(np.zeros((8, 8, 3), np.uint8), artifact_file="training_mix.png")
            if len(requested) - 1 == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            mlflow.log_metrics({"val_ap": value(config), "val_precision": 0.5, "val_recall": 0.25})
        return mlflow.get_run(run.info.run_id)

    patch("validate", validate)
    patch("adapter_run", lambda config, samples: "")
    patch("build_validation_set", lambda objective, pool, data: ValidationSet([], f"AP of a stub, {objective}"))
    patch("measure_finalists", lambda finalists, paper, data: FinalReport("a table", f"{list(finalists)}", None))
    return requested


def work(location: RunLocation, key: str, data: CheckedData, config: SearchConfig) -> None:
    """Install the stub and run a worker in its own process."""
    import inandout.stages.search.run as module

    install(lambda name, new: setattr(module, name, new))
    module._work(location, key, data, config)


def start(data: Path, n_trials: int, deadly: int) -> "subprocess.Popen[str]":
    """Start a search in another process, in the current folder."""
    arguments = [sys.executable, "-c", OTHER, str(data), str(n_trials), str(deadly)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

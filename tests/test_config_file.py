"""`--config`: options from a file or from a run."""

import json
from pathlib import Path

import pytest

from inandout.config_file import read_options
from inandout.entry_points import STAGES
from inandout.options import StageConfig
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.pools.config import AugmentConfig, DdpmPoolConfig, InpaintPoolConfig, MemSegPoolConfig
from inandout.tracking.runs import open_run
from inandout.tracking.store import connect
from tests.test_main import run


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert run(*arguments, "--dry-run") == 0
    values: dict[str, object] = json.loads(capsys.readouterr().out)
    return values


@pytest.mark.parametrize("text", ["n-aug: 7\nalpha: none\nepochs: 3\n", '{"n_aug": 7, "alpha": null, "epochs": 3}'])
def test_the_command_line_wins_over_the_file(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    values = dry_run(capsys, "classify", "--config", str(file), "--epochs", "4")
    assert (values["n_aug"], values["alpha"], values["epochs"]) == (7, None, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "classify has no option 'epoch'; did you mean 'epochs'?"),
        ("epochs: 0", "epochs = 0: Input should be greater than or equal to 1"),
        ("shot: [full]", "shot = ['full']"),
        ("epochs", "does not map options to values"),
        ("epochs: [", "cannot be read as YAML"),
    ],
)
def test_a_file_is_checked_as_the_options_are(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(text)
    assert run("classify", "--config", str(file)) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classify", "--config", "nowhere.yaml") == 2
    assert "config = nowhere.yaml: cannot be read" in capsys.readouterr().err


def test_the_options_of_a_run_are_those_of_a_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connect()
    config = ClassifyConfig.from_flat(n_aug=7, shot="few")
    with open_run("classify", config.flat(), "key", "name") as opened:
        pass
    values = dry_run(capsys, "classify", "--config", f"run:{opened.info.run_id}", "--seed", "5")
    assert values == config.resolved().flat() | {"seed": 5}
    assert run("check", "--config", f"run:{opened.info.run_id}") == 2
    assert "check has no option" in capsys.readouterr().err
    assert run("classify", "--config", "run:nothing") == 2
    assert "nothing: is not a run" in capsys.readouterr().err


def test_the_dataset_that_every_run_logs_is_no_option_of_some_commands(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connect()
    with open_run("distance", {"model": "m", "pools": "p", "fresh": False, "data": "d"}, "key", "name") as opened:
        pass
    values = dry_run(capsys, "distance", "--config", f"run:{opened.info.run_id}")
    assert values == {"model": "m", "pools": "p", "fresh": False}


@pytest.mark.parametrize("pool", [MemSegPoolConfig(), DdpmPoolConfig(), InpaintPoolConfig()])
def test_the_logged_options_of_a_pool_give_the_same_pool_again(pool: MemSegPoolConfig | DdpmPoolConfig) -> None:
    assert AugmentConfig.from_flat(**pool.flat()).source_config() == pool


@pytest.mark.parametrize("name", STAGES)
def test_every_command_accepts_its_own_options(name: str, tmp_path: Path) -> None:
    config: type[StageConfig] = STAGES[name].config
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config().flat()))
    assert config.from_flat(**read_options(str(file), name, config)) == config()


def test_mlflow_run_passes_every_option_so_a_file_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    assert run("classify", "--config", "options.yaml") == 2
    assert "`mlflow run` passes every option" in capsys.readouterr().err

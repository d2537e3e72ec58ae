"""The command line: options, and messages of invalid ones."""

import io
import json
import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from inandout.__main__ import main
from inandout.entry_points import STAGES, Stage

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    code = stop.value.code
    return code if isinstance(code, int) else 0


@pytest.mark.parametrize(
    ("old", "new"), [("topup", "extend-pool"), ("labels", "label-errors"), ("probe", "probe-shortcut")]
)
def test_an_old_name_is_an_unlisted_alias(
    old: str, new: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(old, "--dry-run") == run(new, "--dry-run") == 0
    first, second = capsys.readouterr().out.split("}\n{")
    assert first.strip("{}\n ") == second.strip("{}\n ")
    assert run("--help") == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert new in listed
    assert old not in listed


@pytest.mark.parametrize("name", [name for name in STAGES if not STAGES[name].plan_location])
def test_a_dry_run_only_prints_the_resolved_configuration(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, "--dry-run") == 0
    assert set(json.loads(capsys.readouterr().out)) == set(STAGES[name].config.options())
    assert [path.name for path in project.iterdir()] == ["mlflow.db"], "the unchanged tracking store"


def test_both_spellings_of_an_option_work_and_so_does_a_value_for_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classify", "--n-aug", "7", "--batch_size=3", "--dry_run=true") == 0
    config = json.loads(capsys.readouterr().out)
    assert (config["n_aug"], config["batch_size"]) == (7, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--ddpm-ratio", "1.1"], "ddpm_ratio = '1.1': Input should be less than or equal to 1"),
        (["--ddpm-ratio", "-0.1"], "ddpm_ratio = '-0.1': Input should be greater than or equal to 0"),
        (["--ddpm-ratio", "nan"], "ddpm_ratio = nan: is infinite, no number"),
        (["--seed", "-1"], "seed = '-1': Input should be greater than or equal to 0"),
        (["--seed", "4294967296"], "seed = '4294967296': Input should be less than 4294967296"),
        (["--seed", "none"], "seed = 'none': Input should be a valid integer"),
        (["--epochs", "0"], "epochs = '0': Input should be greater than or equal to 1"),
        (["--shot", "half"], "shot = 'half': Input should be 'zero', 'few' or 'full'"),
        (["--width", "1"], "width = '1': Input should be greater than or equal to 32"),
        (["--weights", ""], "weights = ''"),
    ],
)
def test_a_value_out_of_range_prints_value_and_range_and_exits_with_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("classify", *arguments, "--dry-run") == 2
    assert expected in capsys.readouterr().err


def test_all_errors_are_listed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("classify", "--epochs", "0", "--lr", "fast") == 2
    error = capsys.readouterr().err
    assert "epochs = '0'" in error
    assert "lr = 'fast'" in error


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["clasify"], "did you mean 'classify'?"),
        (["lables"], "did you mean 'labels'?"),
        (["classify", "--ddpm-ration", "0.5"], "'--ddpm-ratio'"),
        (["classify", "--shot", "ful"], "did you mean 'full'?"),
        (["main", "--sources", "none,memsek"], "did you mean 'memseg'?"),
        (["surfaces", "--surface", "wooded"], "did you mean 'wooden'?"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_word(
    arguments: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert nearest in capsys.readouterr().err


@pytest.mark.parametrize("verbose", [False, True])
def test_logs_and_warnings_of_libraries_are_shown_with_verbose_only(
    verbose: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    def noisy(config: object) -> None:
        logging.getLogger("mlflow").warning("a log of a library")
        warnings.warn("a warning of a library", stacklevel=2)
        print("our line")

    monkeypatch.setattr(Stage, "run", lambda stage, config: noisy(config))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run("report", *["--verbose"] * verbose) == 0
    assert ("a log of a library" in caplog.text, bool(caught)) == (verbose, verbose)
    assert capsys.readouterr().out == "our line\n"


HEAVY = ("torch", "diffusers", "transformers", "mlflow", "sklearn", "scipy", "matplotlib", "optuna", "pandas", "numpy")


def test_help_typos_and_dry_runs_import_nothing_heavy() -> None:
    """One process runs them all: what it has not imported in the end, none of them imports."""
    lines = [["--help"], ["clasify"], ["classify", "--epochs", "0"]]
    lines += [[name, option] for name, stage in STAGES.items() for option in ("--help", "--dry-run")]
    for name in ("main", "experiment"):
        lines.remove([name, "--dry-run"])  # prints the cost as well, which it computes from the data
    code = (
        "import contextlib, io, sys\n"
        "from inandout.__main__ import main\n"
        f"for line in {lines!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):\n"
        "        with contextlib.suppress(SystemExit):\n"
        "            main(line)\n"
        f"print(sorted(set({HEAVY!r}) & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_training_a_classifier_imports_no_diffusion_model() -> None:
    code = (
        "import sys, inandout.stages.classify.train; print({'diffusers', 'transformers', 'peft'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_constraints_between_fields_print_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("augment", "--min-area", "0.6", "--dry-run") == 2
    assert "min_area = 0.6 must be less than max_area = 0.5" in capsys.readouterr().err


def test_lists_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("main", "--seeds", "0,-1", "--shots", "zero,most", "--dry-run") == 2
    error = capsys.readouterr().err
    assert "'-1' is not a seed" in error
    assert "'most' is not a shot" in error


@pytest.mark.parametrize("arguments", [["--seeds", "0,0"], ["--seeds", "1, 01"], ["--shots", "full,full"]])
def test_duplicate_cells_raise_an_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("main", *arguments, "--dry-run") == 2
    assert "contains a duplicate" in capsys.readouterr().err


def test_check_does_not_overwrite_its_input(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tiny.read_bytes()
    assert run("check", "--data", str(tiny), "--write", str(tiny)) == 2
    assert "give another name" in capsys.readouterr().err
    assert tiny.read_bytes() == before


def test_missing_data_prints_one_sentence(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "--data", "nowhere") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: nowhere: no such")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["classify", "--ddpm-ratio", ".5"], "30 MemSeg, 30 ddpm (base embedded, alpha 1)"),
        (["classify", "--n-aug", "0"], "synthetic positives: none"),
        (["augment", "--source", "ddpm"], "60 whole images by base embedded with an adapter that is fine-tuned first"),
        (["augment", "--source", "inpaint", "--adapter", "none"], "by base embedded with adapter none, 12 steps"),
        (["finetune", "--shot", "zero"], "base embedded on up to 50 good images as 'skt background', 4 epochs"),
    ],
)
def test_long_commands_say_first_what_they_are_about_to_do(
    arguments: list[str], expected: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments, "--data", "nowhere", "--prompts" if arguments[0] == "augment" else "--seed", "1") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("data: nowhere, 64x192")
    assert expected in "\n".join(lines[1:3])
    assert lines[-2].startswith("a finished run")
    assert lines[-1].startswith("error: nowhere")


def test_long_commands_say_how_long_they_take_and_where_before_they_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Stage, "run", lambda stage, config: print("run"))
    assert run("classify", "--epochs", "20") == 0
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"time: about \d+ min on .*CPU cores?.*rough estimate.*", lines[-2])
    assert lines[-1].startswith("device: ")


def test_a_console_without_the_characters_of_a_path_gets_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert run("--help") == 0
    print("Pr\u00fcfung")
    assert written.getvalue().endswith(b"Pr\\xfcfung\n")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device", "a.png"), "the disk is full (OSError: [Errno 28]"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "the disk is full (RuntimeError"),
        (PermissionError(13, "Permission denied", "a"), "the system refused a file or connection (PermissionError"),
        (ConnectionResetError("reset by peer"), "the system refused a file or connection (ConnectionResetError"),
        (OperationalError("INSERT", {}, Exception("locked")), "the tracking store refused a request (OperationalError"),
    ],
)
def test_what_disk_network_and_store_refuse_is_one_sentence(
    error: Exception, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(Stage, "run", refuse)
    assert run("check") == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {sentence}")
    assert message.count("\n") == 1


def test_a_mistake_in_the_code_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "run", lambda *_: [][0])
    with pytest.raises(IndexError):
        main(["check"])


def test_verbose_shows_the_traceback_of_what_the_system_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise FileNotFoundError("metrics.csv")

    monkeypatch.setattr(Stage, "run", refuse)
    for words, shown in ((["check"], False), (["check", "-v"], True)):
        with pytest.raises(SystemExit):
            main(words)
        told = capsys.readouterr().err
        assert "the system refused a file or connection" in told
        assert ("Traceback" in told) == shown

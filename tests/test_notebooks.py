"""The notebooks run from top to bottom, show what they promise, and hold no code of their own."""

import ast
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbformat import NotebookNode

from inandout.stages.search.run import search
from tests.search.stub import MODULE, config, install

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("compare", "look", "study")
WHERE = "import sys, inandout; print(os.getcwd(), sys.executable, inandout.__file__, sep='\\n')"
"""A last cell: the folder, Python and package that the kernel used."""
TABLE, IMAGE, TEXT = "text/html", "image/png", "text/markdown"


def read(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> NotebookNode:
    """As Jupyter does: with the notebook's folder as the current one, and with the package that is tested."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    here = project / "notebooks"
    here.mkdir()
    notebook = read(name)
    notebook.cells.append(nbformat.v4.new_code_cell(WHERE))
    client = NotebookClient(notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(here)}})
    client.execute()
    where = notebook.cells.pop().outputs[0].text.splitlines()
    assert where == [str(project), sys.executable, str(FOLDER.parent / "inandout" / "__init__.py")]
    return notebook


def shown(notebook: NotebookNode, kind: str) -> list[str]:
    """Every output of one kind."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [output.data[kind] for output in outputs if kind in output.get("data", {})]


def printed(notebook: NotebookNode) -> str:
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_these_are_all() -> None:
    assert tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_without_outputs_and_says_what_each_cell_does(name: str) -> None:
    cells = read(name).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code"] * (len(cells) // 2)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_of(read(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_defines_nothing(name: str) -> None:
    defining = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    source = "\n".join(TransformerManager().transform_cell(cell.source) for cell in code_of(read(name)))
    nodes = list(ast.walk(ast.parse(source)))
    assert not [node for node in nodes if isinstance(node, defining)]
    assert any(isinstance(node, ast.ImportFrom) and (node.module or "").startswith("inandout") for node in nodes)


@pytest.mark.slow
def test_look_shows_the_data_and_both_kinds_of_synthetic_defects(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    done = execute("look", project, monkeypatch)
    assert len(shown(done, IMAGE)) == 4, "good, real, MemSeg, diffusion"
    assert "train     24 negatives, 12 positives" in printed(done)
    assert len(list((project / "data" / "look").rglob("*_GT.png"))) == 60


@pytest.mark.slow
def test_compare_gives_the_runs_the_table_the_verdict_and_the_curves(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    done = execute("compare", project, monkeypatch)
    (runs,) = shown(done, TABLE)
    assert runs.count("<tr") == 1 + 2
    table, verdict = shown(done, TEXT)
    assert [line.split("|")[2].strip() for line in table.splitlines()[2:]] == ["none", "MemSeg"]
    assert table in printed(done), "as the command prints it"
    assert "full shot, n_aug 8, MemSeg against none: AP" in verdict
    assert len(shown(done, IMAGE)) == 2


@pytest.mark.slow
def test_study_shows_the_trials_and_optuna_s_figures(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    install(lambda name, value: monkeypatch.setattr(f"{MODULE}.{name}", value))
    search(config(tiny, n_trials=6))
    done = execute("study", project, monkeypatch)
    (trials,) = shown(done, TABLE)
    assert trials.count("<tr") == 1 + 6
    assert len(shown(done, IMAGE)) == 6
    assert "a table" in shown(done, TEXT)[0]

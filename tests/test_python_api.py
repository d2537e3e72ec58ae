"""`import inandout`: quick, typed, and documented by examples that run."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import inandout

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "inandout" / "__init__.py"
PAGE = ROOT / "docs" / "python_api.md"
HEAVY = ("torch", "torchvision", "diffusers", "transformers", "mlflow", "sklearn", "numpy", "pydantic")


def blocks() -> list[str]:
    """Every example of the page, with blank lines before it so that a traceback has the line of the page."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, block.start(1)) + block[1] for block in found]


def seen_by_type_checkers() -> dict[str, str]:
    """Names to modules, of the imports under `if TYPE_CHECKING`."""
    (block,) = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    assert isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_importing_the_package_imports_nothing_large() -> None:
    code = f"import sys, inandout; dir(inandout); print(set({HEAVY!r}) & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_type_checkers_see_what_is_imported_on_first_use() -> None:
    places = {name: f"inandout.{module}" for name, module in inandout._MODULES.items()}
    assert seen_by_type_checkers() == places
    assert list(places) == inandout.__all__ == sorted(inandout.__all__)


@pytest.mark.parametrize("name", inandout.__all__)
def test_a_name_is_the_object_of_its_module(name: str) -> None:
    value = getattr(inandout, name)
    assert value.__module__ == f"inandout.{inandout._MODULES[name]}", "the table names where it is defined"
    assert value is getattr(import_module(value.__module__), name)
    assert value.__doc__
    assert name in dir(inandout)


def test_the_citation_and_the_changelog_name_the_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", inandout.__version__)
    assert f"\nversion: {inandout.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {inandout.__version__} - " in (ROOT / "CHANGELOG.md").read_text()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'inandout' has no attribute 'nonsense'"):
        inandout.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_the_examples_use_every_name() -> None:
    text = "\n".join(blocks())
    assert {name for name in inandout.__all__ if f"inandout.{name}" not in text} == {"InputError"}


@pytest.mark.slow
def test_the_examples_run(project: Path) -> None:
    namespace: dict[str, object] = {}
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), namespace)

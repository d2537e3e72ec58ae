"""Imports go one way; methods know neither MLflow nor the command line."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "inandout"
LAYERS = [
    {"errors", "processes", "seeds"},
    {"data", "checkpoint", "engine"},
    {"memseg", "classifier", "diffusion", "images", "published"},
    {"mixing", "metrics", "distances", "report", "review"},
    {"verdict", "operating", "search", "shortcut", "sieve"},
    {"tracking", "card"},
    {"serving", "registry"},
    {"stages"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def modules_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_module_has_a_layer() -> None:
    assert {layer_of(path) for path in files()} == set(RANK)


def test_no_module_imports_from_a_later_or_a_neighbouring_layer() -> None:
    checked = 0
    for path in files():
        mine = layer_of(path)
        for module in modules_of(path):
            if module.startswith("inandout."):
                other = module.split(".")[1]
                assert other == mine or RANK[other] < RANK[mine], f"{path} imports {module}"
                checked += 1
    assert checked > 50


def test_only_tracking_serving_registry_and_stages_know_mlflow() -> None:
    knowing = {layer_of(path) for path in files() if any(m.split(".")[0] == "mlflow" for m in modules_of(path))}
    assert knowing == {"tracking", "serving", "registry", "stages"}


def test_only_search_knows_optuna() -> None:
    assert {layer_of(path) for path in files() if any(m.split(".")[0] == "optuna" for m in modules_of(path))} == {
        "search"
    }

"""Imports go one way; methods know neither MLflow nor the command line."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "inandout"

LAYERS = [
    {"errors"},
    {"files", "hardware", "processes", "options", "seeds"},
    {"data", "checkpoint", "parallel", "fingerprints", "mlproject"},
    {"memseg", "classifier", "diffusion"},
    {"mixing", "evaluation"},
    {"reporting", "search", "tracking"},
    {"review", "serving"},
    {"stages"},
    {"entry_points", "config_file"},
    {"__main__"},
]
"""Parts of the package: each may import those of earlier lines."""

DIFFUSION = {
    "": set(),
    "base": {""},
    "lora": {""},
    "finetune": {"", "base", "lora"},
    "sample": {"", "base"},
    "pretrain": {"", "base"},
}
"""Folder of `inandout/diffusion` to the folders there that it imports; "" are the modules beside them."""

STAGES = {
    "": set(),
    "pools": {""},
    "classify": {"pools"},
    "analysis": {"pools", "classify"},
    "experiment": {"", "pools", "classify", "analysis"},
    "search": {"pools", "classify"},
    "review": {"pools", "classify"},
    "release": {"classify"},
}
"""The same of `inandout/stages`."""

MOST_MODULES = 15
"""In a folder, `__init__.py` left out."""


def modules_of(path: Path) -> set[str]:
    """What a file imports; of `from package import module` both count."""
    tree = ast.parse(path.read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if is_module(node.module, alias.name)}
    return found


def is_module(package: str, name: str) -> bool:
    path = PACKAGE.parent.joinpath(*package.split("."), name)
    return path.with_suffix(".py").is_file() or path.is_dir()


def files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def folder_of(module: str) -> str:
    """Folder of `inandout.<part>.<folder>.<module>`, "" for `inandout.<part>.<module>`."""
    names = module.split(".")
    return names[2] if len(names) > 2 and PACKAGE.joinpath(*names[1:3]).is_dir() else ""


def arrows(part: str) -> Iterator[tuple[Path, str, str]]:
    """Every import within a part: the file, its folder, and the folder that it imports from."""
    for path in sorted((PACKAGE / part).rglob("*.py")):
        mine = folder_of(".".join(["inandout", *path.relative_to(PACKAGE).with_suffix("").parts]))
        for module in modules_of(path):
            if module.startswith(f"inandout.{part}."):
                yield path, mine, folder_of(module)


def test_the_package_does_not_use_its_own_list_of_names() -> None:
    """`inandout/__init__.py` is above all layers: `from inandout import merge` would hide an import of diffusion."""
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "inandout":
                assert all(is_module("inandout", alias.name) for alias in node.names), path


def test_every_module_has_a_layer() -> None:
    assert {layer_of(path) for path in files()} == {name for layer in LAYERS for name in layer}


def test_no_module_imports_from_a_later_or_a_neighbouring_layer() -> None:
    rank = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
    checked = 0
    for path in files():
        mine = layer_of(path)
        for module in modules_of(path):
            if module.startswith("inandout."):
                other = module.split(".")[1]
                assert other == mine or rank[other] < rank[mine], f"{path} imports {module}"
                checked += 1
    assert checked > 50


@pytest.mark.parametrize(("part", "allowed"), [("diffusion", DIFFUSION), ("stages", STAGES)])
def test_folders_import_only_what_is_drawn(part: str, allowed: dict[str, set[str]]) -> None:
    used: dict[str, set[str]] = {folder: set() for folder in allowed}
    for path, mine, other in arrows(part):
        assert mine == other or other in allowed[mine], f"{path} imports from {part}/{other or 'itself'}"
        used[mine] |= {other} - {mine}
    assert used == allowed, "an arrow that is drawn and not needed is to be taken out"


@pytest.mark.parametrize("allowed", [DIFFUSION, STAGES])
def test_the_drawn_arrows_make_no_circle(allowed: dict[str, set[str]]) -> None:
    order = list(allowed)
    assert all(order.index(other) < order.index(folder) for folder, others in allowed.items() for other in others)


def test_no_folder_holds_more_than_a_reader_can_take_in() -> None:
    for folder in {path.parent for path in files()}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, f"{folder} holds {len(modules)} modules"


def test_only_tracking_serving_and_stages_know_mlflow() -> None:
    knowing = {layer_of(path) for path in files() if any(m.split(".")[0] == "mlflow" for m in modules_of(path))}
    assert knowing == {"tracking", "serving", "stages"}


def test_only_search_knows_optuna() -> None:
    assert {layer_of(path) for path in files() if any(m.split(".")[0] == "optuna" for m in modules_of(path))} == {
        "search"
    }

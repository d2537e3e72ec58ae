"""Identity of a result: its options, inputs, code and libraries.

The code is the source, without comments and docstrings, of the package modules that the stage's module imports directly
or indirectly. It is read without importing the modules.
"""

import ast
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import inandout
from inandout.options import StageConfig

PACKAGE = Path(inandout.__file__).parent
LIBRARIES = {
    "torch": "torch", "torchvision": "torchvision", "diffusers": "diffusers", "peft": "peft",
    "transformers": "transformers", "numpy": "numpy", "PIL": "pillow",
}  # fmt: skip
"""Module to distribution of the libraries whose versions are part of the identity."""
_WITHOUT_EFFECT = {
    "errors", "fingerprints", "options", "parallel", "processes", "reporting", "review", "tracking",
}  # fmt: skip
"""Modules and subpackages that show, store or distribute results; no result depends on them."""

_ALWAYS_IGNORED = {"fresh", "device", "compile"}
"""Options that decide when, where and how fast a result is computed."""
_ONLY_FEW = {"n_shot", "each_kind"}
"""Options that only shot=few uses."""


@dataclass(frozen=True)
class Identity:
    """Everything that the result of a stage depends on."""

    stage: str
    module: str
    """`__name__` of the module that computes the result."""
    config: StageConfig
    """Resolved configuration."""
    inputs: Mapping[str, str]
    """Name to fingerprint of the content."""
    ignored: Collection[str] = ()
    """Options to leave out, because an input covers them or they have no effect. `fresh`, `device` and
    `compile` always are; `n_shot` and `each_kind` are unless shot=few."""

    def __post_init__(self) -> None:
        """Check names.

        Raises:
            ValueError: an input has the name of an option that is not ignored, or an ignored option does not exist.
        """
        options = self.config.options().keys()
        if clash := self.inputs.keys() & options - set(self.ignored):
            raise ValueError(f"{self.stage}: inputs and options share the names {sorted(clash)}; ignore these options")
        if unknown := set(self.ignored) - options:
            raise ValueError(f"{self.stage}: there are no options {sorted(unknown)} to ignore")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all parts, 32 hexadecimal digits."""
        options = self.config.flat()
        without_effect = set() if options.get("shot", "few") == "few" else _ONLY_FEW
        ignored = {*_ALWAYS_IGNORED, *without_effect, *self.ignored}
        options = {name: value for name, value in options.items() if name not in ignored}
        text = json.dumps([self.stage, options, dict(self.inputs), computed_by(self.module)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def computed_by(module: str) -> list[object]:
    """Return a JSON-compatible identity of the code of a module and of its libraries."""
    return [code_fingerprint(module), library_versions(module)]


@cache
def code_fingerprint(module: str, package: Path = PACKAGE) -> str:
    """Return 16 hexadecimal digits for the code of a module and of its imports from the package.

    It is cached, so that edits during a run do not change it.
    """
    code = hashlib.sha256()
    for name in sorted(_dependencies(module, package)):
        code.update(f"{name}\0{_read(name, package).code}\0".encode())
    return code.hexdigest()[:16]


def library_versions(module: str, package: Path = PACKAGE) -> dict[str, str]:
    """Return versions of the `LIBRARIES` that a module and its imports from the package use."""
    imported = {
        name.partition(".")[0] for each in _dependencies(module, package) for name in _read(each, package).imports
    }
    return {LIBRARIES[name]: version(LIBRARIES[name]).partition("+")[0] for name in sorted(imported & LIBRARIES.keys())}


class _Source(NamedTuple):
    """A parsed module."""

    code: str
    """Dump of the syntax tree without docstrings."""
    imports: frozenset[str]
    """Full names of imported modules and objects."""


@cache
def _read(module: str, package: Path) -> _Source:
    tree = ast.parse(_file(module, package).read_text(encoding="utf-8"))
    imports = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"{module}: imports are absolute"
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return _Source(ast.dump(_WithoutDocstrings().visit(tree)), frozenset(imports))


class _WithoutDocstrings(ast.NodeTransformer):
    """Remove statements that consist of a string."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Return None for a string, else the node."""
        value = node.value
        return None if isinstance(value, ast.Constant) and isinstance(value.value, str) else node


@cache
def _dependencies(module: str, package: Path) -> frozenset[str]:
    """Return the module, its direct and indirect imports from the package, and their subpackages."""
    dependencies: set[str] = set()
    pending = {module}
    while pending:
        name = pending.pop()
        dependencies.add(name)
        imports = {name.rpartition(".")[0], *_read(name, package).imports}
        pending |= {each for each in imports if _affects_results(each, package)} - dependencies
    return frozenset(dependencies)


def _affects_results(module: str, package: Path) -> bool:
    """Return whether a name is a module of the package, other than its root, that can change results."""
    top, _, rest = module.partition(".")
    return bool(rest) and top == package.name and rest.split(".")[0] not in _WITHOUT_EFFECT and _exists(module, package)


def _exists(module: str, package: Path) -> bool:
    return _file(module, package).is_file()


def _file(module: str, package: Path) -> Path:
    path = package.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

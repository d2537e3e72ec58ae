"""README and documentation: commands match the command line, links lead somewhere, the site lists every page."""

import ast
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import inandout
from inandout.entry_points import ALIASES, STAGES
from inandout.reporting.tables import COLUMNS

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "experiments").glob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")), ROOT / "benchmarks" / "README.md", ROOT / "notebooks" / "README.md",
    ROOT / "inandout" / "diffusion" / "surface-diffusion" / "README.md",
]  # fmt: skip
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
WITHOUT_OPTIONS = {"doctor", "mlproject"}
"""Commands that are no stages."""
CALL = re.compile(r"(?:-m inandout|^inandout|^docker run .* inandout(?:-cuda)?) (.+)$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def shell_lines(text: str) -> Iterator[str]:
    """Lines of all shell blocks, with continued lines joined and placeholders filled in."""
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        joined = re.sub(r" *\\\n *", " ", block).replace("$name", "table2")
        yield from re.sub(r"<[a-z][^>\n]*>", "x", joined).splitlines()


def commands(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Name and options of each command of the package, called directly or by `mlflow run`."""
    for line in shell_lines(text):
        words = shlex.split(line, comments=True)
        if words[:2] == ["mlflow", "run"]:
            name = words[words.index("-e") + 1] if "-e" in words else "main"
            yield name, dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "-P")
        elif found := CALL.search(" ".join(map(shlex.quote, words))):
            name, *rest = shlex.split(found[1])
            yield name, dict(pairs(rest))


def pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """Options with their values; `--dry-run` and `--help` have none."""
    rest = iter(word for word in words if word not in ("--dry-run", "--help"))
    for word in rest:
        assert word.startswith("--"), f"{word!r} is no option"
        name, equals, value = word.removeprefix("--").partition("=")
        yield name.replace("-", "_"), value if equals else next(rest)


def check_command(stage: str, given: dict[str, str]) -> None:
    """Raise an error if the stage, an option or a value is invalid."""
    if stage in WITHOUT_OPTIONS:
        assert not given
        return
    config = STAGES[stage].config
    options = config.options()
    values = {
        key: None if value == "none" and options[key].field.default is None else value
        for key, value in given.items()
        if key != "config"
    }
    config.from_flat(**values).resolved()


@pytest.mark.parametrize(
    ("name", "fewest"),
    [
        ("README.md", 18), ("docs/index.md", 8), ("docs/data.md", 5), ("docs/train.md", 7), ("docs/memseg.md", 3),
        ("docs/diffusion.md", 6), ("docs/review.md", 6), ("docs/search.md", 2), ("docs/registry.md", 3),
        ("docs/serve.md", 1), ("docs/experiments.md", 6), ("docs/gpus.md", 7), ("experiments/paper_tables.md", 6),
    ],
)  # fmt: skip
def test_every_documented_command_is_valid(name: str, fewest: int) -> None:
    found = list(commands(read(name)))
    assert len(found) >= fewest
    for stage, given in found:
        check_command(stage, given)


def test_the_commands_of_a_text_are_found() -> None:
    text = """```bash
python -m inandout classify --data <your data> \\
    --n-aug=3 --dry-run   # comment
mlflow run . -e search -P shot=full
accelerate launch --multi_gpu -m inandout finetune --shot few
docker build -t inandout .
```"""
    assert list(commands(text)) == [
        ("classify", {"data": "x", "n_aug": "3"}), ("search", {"shot": "full"}), ("finetune", {"shot": "few"})
    ]  # fmt: skip


def test_the_first_page_lists_every_command() -> None:
    table = read("docs/index.md").partition("## All commands")[2]
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE))
    assert set(STAGES) <= listed
    assert all(f"`{old}`" in table for old in ALIASES)


@pytest.mark.parametrize(("name", "fewest"), [("ci.yml", 5), ("release.yml", 1)])
def test_every_command_of_a_workflow_is_valid(name: str, fewest: int) -> None:
    jobs = yaml.safe_load(read(f".github/workflows/{name}"))["jobs"]
    steps = "\n".join(step["run"] for job in jobs.values() for step in job["steps"] if "run" in step)
    found = list(commands(f"```bash\n{steps}\n```"))
    assert len(found) >= fewest
    for stage, given in found:
        check_command(stage, given)
    targets = set(re.findall(r"^([\w.$()/-]+):", read("Makefile"), re.MULTILINE))
    for line in re.findall(r"^make (.+)$", steps, re.MULTILINE):
        assert {target.replace(".venv", "$(VENV)") for target in line.split()} <= targets
    for path in re.findall(r"\btests/[\w./]+", steps):
        assert (ROOT / path).exists()


def test_pre_commit_uses_the_locked_ruff() -> None:
    (ruff, *_) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert f"ruff=={ruff['rev'].removeprefix('v')}\n" in read("requirements-dev.lock")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[ ]", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_inside_the_repository_leads_to_a_file_and_heading(name: str) -> None:
    page = ROOT / name
    for found in LINK.finditer(without_code(page.read_text(encoding="utf-8"))):
        link = found[1] or found[2]
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / path)) if path else page
        assert target.exists(), f"{name}: {link}"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name}: {link}"


def test_links_and_anchors_of_a_text_are_found() -> None:
    found = [match[1] or match[2] for match in LINK.finditer('[a](b.md#c) ![d](e.png) <img src="f.svg">')]
    assert found == ["b.md#c", "e.png", "f.svg"]
    assert anchors("# The demo\n## MLflow, storage and cleaning up\n") == {"the-demo", "mlflow-storage-and-cleaning-up"}


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without MkDocs."""


Loader.add_multi_constructor("tag:yaml.org,2002:python", lambda loader, suffix, node: suffix)


def leaves(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, list):
        for each in entry:
            yield from leaves(each)
    else:
        yield from leaves(list(entry.values()))


def test_the_site_lists_every_page_once() -> None:
    listed = list(leaves(yaml.load(read("mkdocs.yml"), Loader)["nav"]))
    pages = [name.removeprefix("docs/") for name in NAMES if not name.startswith((".github/", "notebooks/"))]
    assert sorted(listed) == sorted(pages)


def test_the_reference_has_every_name_of_the_python_api() -> None:
    listed = re.findall(r"^::: (inandout\.[\w.]+)$", read("docs/reference.md"), re.MULTILINE)
    assert sorted(listed) == sorted(f"inandout.{module}.{name}" for name, module in inandout._MODULES.items())


def test_the_table_of_the_demo_has_the_columns_that_main_prints() -> None:
    (header,) = re.findall(r"^\| shot \|.*$", read("README.md"), re.MULTILINE)
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["shot", "source", "n_aug", "seeds", *COLUMNS]


def test_the_figures_of_the_pipeline_are_those_of_the_script() -> None:
    spec = importlib.util.spec_from_file_location("draw_pipeline", ROOT / "docs" / "draw_pipeline.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, theme in script.THEMES.items():
        assert read(f"docs/pipeline-{name}.svg") == script.pipeline(theme), "run docs/draw_pipeline.py"


def messages() -> str:
    """The source of the package, with string literals of adjacent lines joined."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "inandout").rglob("*.py")))
    return re.sub(r"\"\s*\n\s*f?\"", "", sources)


def input_errors() -> Iterator[str]:
    """Texts of the messages of `InputError` in the source, with `...` for values; messages made of values only not."""
    for path in sorted((ROOT / "inandout").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "InputError":
                parts = getattr(node.args[0], "values", [node.args[0]])
                texts = [str(part.value) if isinstance(part, ast.Constant) else "..." for part in parts]
                if max(map(len, texts)) > len(": ...; give "):
                    yield "".join(texts)


def test_troubleshooting_has_a_row_for_every_error_of_a_user() -> None:
    quotes = re.findall(r"`([^`]+)`", read("docs/troubleshooting.md"))
    parts = {part.strip() for quote in quotes for part in quote.split("...") if len(part.strip()) > 3}
    errors = set(input_errors())
    assert len(errors) > 200
    assert [error for error in errors if not any(part in error for part in parts)] == []


def test_troubleshooting_quotes_messages_that_exist() -> None:
    """Each quotation, cut at `...`, occurs in the source; messages of make, MLflow, click and pydantic are others'."""
    table = read("docs/troubleshooting.md").partition("## Datasets")[2]
    first = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    quoted = [part.strip() for cell in first for quote in re.findall(r"`([^`]+)`", cell) for part in quote.split("...")]
    known = re.sub(r"\{[^{}]*\}", "", messages())
    wrong = [part for part in quoted if len(part) > 3 and part not in known and part not in messages()]
    assert not wrong

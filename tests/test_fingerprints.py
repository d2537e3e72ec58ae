"""A result is reused if and only if nothing that it depends on has changed."""

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from inandout import fingerprints
from inandout.fingerprints import PACKAGE, Identity, code_fingerprint, library_versions
from inandout.options import Fresh, StageConfig
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.config import FinetuneConfig
from inandout.stages.experiment.config import CompareConfig

FINETUNE = "inandout.stages.finetune"
CLASSIFY = "inandout.stages.classify.train"


class Config(StageConfig):
    data: str = "somewhere"
    alpha: float = 0.5
    fresh: Fresh = False


def key(
    alpha: float = 0.5, where: str = "here", fresh: bool = False, data: str = "abc", stage: str = "s",
    module: str = "inandout.data.images",
) -> str:  # fmt: skip
    config = Config(data=where, alpha=alpha, fresh=fresh)
    return Identity(stage, module, config, {"data": data}, ignored=["data"]).fingerprint


def test_options_and_content_of_inputs_count_but_not_their_location() -> None:
    assert key(where="elsewhere", fresh=True) == key()
    others = {key(alpha=0.6), key(data="abd"), key(stage="t"), key(module="inandout.data.manifest")}
    assert len(others - {key()}) == 4


def test_options_without_effect_do_not_count() -> None:
    def of(kind: type[StageConfig] = FinetuneConfig, **scenario: object) -> str:
        return Identity("s", "inandout.data.images", kind.from_flat(**scenario), {}).fingerprint

    for shot in ("zero", "full"):
        assert of(shot=shot) == of(shot=shot, n_shot=9) == of(shot=shot, each_kind=True)
    assert len({of(shot="few"), of(shot="few", n_shot=9), of(shot="few", each_kind=True)}) == 3
    assert of(ClassifyConfig, compile=True) == of(ClassifyConfig, device="cpu") == of(ClassifyConfig)
    assert of(CompareConfig, shots="few") != of(CompareConfig, shots="few", n_shot=9), "an option of several shots"


def test_an_input_with_the_name_of_an_option_must_be_in_ignored() -> None:
    with pytest.raises(ValueError, match=r"s: inputs and options share the names \['data'\]"):
        Identity("s", __name__, Config(), {"data": "abc"})
    with pytest.raises(ValueError, match=r"s: there are no options \['date'\] to ignore"):
        Identity("s", __name__, Config(), {}, ignored=["date"])


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Editable copy of the package."""
    shutil.copytree(PACKAGE, tmp_path / "inandout", ignore=lambda folder, names: [n for n in names if _is_data(n)])
    return tmp_path / "inandout"


def _is_data(name: str) -> bool:
    return name in ("surface-diffusion", "page", "__pycache__")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def clear_caches() -> None:
    """Forget the code, as in a new process."""
    fingerprints._read.cache_clear()
    fingerprints._dependencies.cache_clear()
    code_fingerprint.cache_clear()


def test_docstrings_and_the_review_page_do_not_change_a_fine_tuning(package: Path) -> None:
    before = {module: code_fingerprint(module, package) for module in (FINETUNE, CLASSIFY)}
    assert before == {module: code_fingerprint(module) for module in before}, "in any location"
    app = package / "review" / "app.py"
    app.write_text(f"{app.read_text()}\nPORT = 80\n")
    training = package / "diffusion" / "finetune" / "dreambooth.py"
    edit(
        training,
        '"""Gradients with a larger norm are clipped to this norm (paper)."""',
        '"""Other words."""\n# and a comment',
    )
    edit(training, "MAX_GRADIENT_NORM = 1.0", "\n\nMAX_GRADIENT_NORM  =  1.0")
    clear_caches()
    assert {module: code_fingerprint(module, package) for module in before} == before


def test_training_code_changes_the_stages_that_use_it(package: Path) -> None:
    before = {module: code_fingerprint(module, package) for module in (FINETUNE, CLASSIFY, "inandout.data.images")}
    loss = package / "diffusion" / "snr_weighting.py"
    loss.write_text(f"{loss.read_text()}\nFACTOR = 2.0\n")
    clear_caches()
    after = {module: code_fingerprint(module, package) for module in before}
    assert after[FINETUNE] != before[FINETUNE]
    assert after["inandout.data.images"] == before["inandout.data.images"]


def test_the_version_of_a_computing_library_changes_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    assert library_versions(FINETUNE).keys() == {"torch", "diffusers", "peft", "transformers", "numpy", "pillow"}
    assert library_versions("inandout.stages.classify.label_errors").keys() >= {
        "torch",
        "torchvision",
        "numpy",
        "pillow",
    }
    assert library_versions("inandout.data.images").keys() == {"numpy", "pillow"}
    trained, read = key(module=FINETUNE), key(module="inandout.data.images")
    installed = version
    monkeypatch.setattr(fingerprints, "version", lambda name: "99.0" if name == "torch" else installed(name))
    assert key(module=FINETUNE) != trained
    assert key(module="inandout.data.images") == read


def test_modules_without_effect_exist() -> None:
    assert all((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() for name in fingerprints._WITHOUT_EFFECT)

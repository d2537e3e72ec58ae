from pathlib import Path

import mlflow
import pytest

from inandout.data.images import write_image
from inandout.data.manifest import Sample, digest, read_manifest, write_manifest
from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.sample.vae_roundtrip import round_trip
from inandout.errors import InputError
from inandout.stages.analysis.config import ProbeShortcutConfig
from inandout.stages.analysis.probe_shortcut import probe_shortcut
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from tests.conftest import SIDE, draw, pointer_to

pytestmark = pytest.mark.slow

SIZE = {"width": SIDE, "height": SIDE}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the export of the model, which takes longer than the training."""
    monkeypatch.setattr("inandout.stages.classify.train._log_export", lambda *_: None)


@pytest.fixture
def fingerprint_data(tmp_path: Path, tiny_base: Path) -> Path:
    """CSV manifest whose positives are good parts after a round trip through the VAE."""
    folder = tmp_path / "cheating"
    folder.mkdir()
    pipeline, samples = open_base(BaseConfig(base=str(tiny_base))).pipeline, []
    parts = [("train", 0)] * 24 + [("train", 1)] * 16 + [("test", 0)] * 12 + [("test", 1)] * 6
    for number, (split, label) in enumerate(parts):
        image = draw(number, False)[0]
        write_image(folder / f"{number}.png", round_trip(pipeline, image[None])[0] if label else image)
        samples.append(Sample(image=folder / f"{number}.png", label=label, split=split, group=f"part {number}"))
    write_manifest(samples, folder / "data.csv")
    return folder / "data.csv"


def train(data: Path, base: Path, **changes: object) -> Result:
    how = {"n_aug": 0, "epochs": 4, "batch_size": 8, **SIZE}
    return classify(ClassifyConfig.from_flat(**{"data": str(data), "base": str(base)} | how | changes))


def test_a_classifier_that_uses_the_fingerprint_is_detected(
    fingerprint_data: Path, tiny_base: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = train(fingerprint_data, tiny_base)
    found = probe_shortcut(ProbeShortcutConfig(run=trained.run_id))
    run = mlflow.get_run(found.run_id)
    values = run.data.metrics
    assert values["auroc_vae_low"] > 0.9
    assert values["called_vae"] > values["called_untouched"] + 0.5
    assert (values["auroc_paste"], values["rise_paste"], values["levels_paste"]) == (0.5, 0, 0)
    assert {"auroc_jpeg", "auroc_resize_high", "called_resize", "rise_vae_low"} <= set(values)
    assert "REACTS" in found.sentence
    assert run.data.tags["inandout.answer"] == found.sentence
    assert run.data.params["n_good_parts"] == "17", "5 in the validation part and 12 in the test part"
    assert f"{values['auroc_vae']:.3f} (" in found.table
    output = capsys.readouterr().out
    assert found.table in output
    assert found.sentence in output
    artifacts = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(found.run_id)}
    assert {"probe.md", "probe.png", "scores.png", "config.json", "manifest.csv"} <= artifacts
    for run_id in (trained.run_id, pointer_to(trained.run_id)):
        assert probe_shortcut(ProbeShortcutConfig(run=run_id)) == found


def test_invalid_runs_raise_an_error(tiny: Path, tiny_base: Path, project: Path, tmp_path: Path) -> None:
    other = augment(AugmentConfig.from_flat(data=str(tiny), n_aug=2, **SIZE)).run_id
    few = train(tiny, tiny_base, epochs=1, val_share=0).run_id
    pool = tmp_path / "pool"
    pool.mkdir()
    rows = []
    for number, sample in enumerate(s for s in read_manifest(tiny) if s.split == "train" and s.label == 1):
        write_image(pool / f"{number}.png", draw(500 + number, True)[0])
        shared = {"origin": "ddpm", "base": "ab" * 16, "sources": (digest(sample.image),)}
        rows.append(Sample(image=pool / f"{number}.png", label=1, **shared))
    write_manifest(rows, pool / "manifest.csv")
    given = {"ddpm_pool": str(pool), "ddpm_ratio": 1, "n_aug": 4, "val_share": 0, "epochs": 1}
    foreign = train(tiny, tiny_base, **given).run_id
    for run_id, message in (
        ("", "run is empty"),
        ("no-such-run", "run = no-such-run: no run has this id"),
        (other, ", not of classify"),
        (few, "have 8 negatives; the probe needs at least 10"),
    ):
        with pytest.raises(InputError, match=message):
            probe_shortcut(ProbeShortcutConfig(run=run_id))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("inandout.stages.analysis.probe_shortcut.FEWEST", 2)
        with pytest.raises(InputError, match=r"another base drew the diffusion images of pool .*; give base="):
            probe_shortcut(ProbeShortcutConfig(run=foreign))


def test_the_map_of_a_mask_head_is_probed_too(tiny: Path, tiny_base: Path, project: Path) -> None:
    frozen = {"head": "mask", "backbone": "resnet18", "freeze": "all", "n_aug": 4}
    run_id = probe_shortcut(ProbeShortcutConfig(run=train(tiny, tiny_base, **frozen).run_id)).run_id
    values = mlflow.get_run(run_id).data.metrics
    assert values["map_auroc_paste"] == values["map_auroc_paste_high"] == 0.5
    assert 0 <= values["map_auroc_seam_low"] <= values["map_auroc_seam"] <= values["map_auroc_seam_high"] <= 1
    table = mlflow.artifacts.load_text(f"runs:/{run_id}/probe_maps.md")
    assert [line.split(" | ")[0] for line in table.splitlines()[4:]][-1].strip("| ") == "region of another good part"

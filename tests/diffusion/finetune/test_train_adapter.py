"""Images in, an adapter out, and a base that is as it was."""

from pathlib import Path

import numpy as np
import pytest

from inandout.data.images import write_image
from inandout.data.manifest import digest
from inandout.diffusion.base.base import Base, weights_fingerprint
from inandout.diffusion.finetune import train_adapter as module
from inandout.diffusion.finetune.config import DreamBoothConfig
from inandout.diffusion.finetune.dreambooth_dataset import DreamBoothDataset, Example
from inandout.diffusion.finetune.train_adapter import train_adapter
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.config import AdapterConfig
from inandout.diffusion.lora.merge import merge
from inandout.errors import InputError
from tests.diffusion.tiny import tiny_pipeline

IMAGES = list(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))


def tiny_base() -> Base:
    pipeline = tiny_pipeline()
    return Base(pipeline, weights_fingerprint(pipeline), "sd")


def train(base: Base, sources: tuple[Path, ...] = (), seed: int = 0) -> Adapter:
    return train_adapter(
        base, IMAGES, epochs=1, lr=0.01, config=DreamBoothConfig(batch_size=2, repeats=1), seed=seed,
        adapter=AdapterConfig(network_dim=2, network_alpha=1, conv_dim=1), prior_images=IMAGES[:1], sources=sources,
    )  # fmt: skip


def test_the_base_is_as_before_and_can_be_merged_and_trained_again() -> None:
    base = tiny_base()
    first, again, other = train(base), train(base), train(base, seed=1)
    assert weights_fingerprint(base.pipeline) == base.fingerprint
    assert not any(part.training for part in (base.pipeline.unet, base.pipeline.text_encoder))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    merged = merge(base.pipeline, base.fingerprint, first, 1.0)
    assert weights_fingerprint(merged) != base.fingerprint


def test_the_adapter_names_the_files_that_it_learned_from(tmp_path: Path) -> None:
    write_image(tmp_path / "image.png", IMAGES[0])
    meta = train(tiny_base(), (tmp_path / "image.png",)).meta
    assert meta.sources == (digest(tmp_path / "image.png"),)
    assert (meta.instance_prompt, meta.prior_prompt) == ("skt background", "background")
    assert meta.code


def test_masks_weight_their_images_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Example] = []

    def stops(base: Base, dataset: DreamBoothDataset, **named: object) -> None:
        seen.extend(dataset.examples)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "dreambooth", stops)
    mask = np.zeros((32, 32), np.bool_)
    mask[8:12, 8:12] = True
    weighted = DreamBoothConfig(mask_weight=5)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(
            tiny_base(), IMAGES, epochs=1, lr=0.01, config=weighted, seed=0, masks=[None, mask], prior_images=IMAGES[:1]
        )
    assert [example.weights is None for example in seen] == [True, False, True]
    assert seen[1].weights is not None and seen[1].weights.shape[1:] == seen[1].latent.shape[1:]
    with pytest.raises(InputError, match="has a mask"):
        train_adapter(tiny_base(), IMAGES, epochs=1, lr=0.01, config=weighted, seed=0)


def test_the_base_is_as_before_after_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    base = tiny_base()
    monkeypatch.setattr(module, "dreambooth", dies)
    with pytest.raises(KeyboardInterrupt):
        train(base)
    assert weights_fingerprint(base.pipeline) == base.fingerprint

import dataclasses

import pytest
import torch

from inandout.diffusion.lora.adapter import Adapter, check_adapter
from inandout.diffusion.lora.layers import adapter_tensors
from inandout.errors import InputError
from tests.diffusion.tiny import BASE, attach_adapter, tiny_adapter, tiny_pipeline

NAME = "unet.mid_block.resnets.0.conv1.lora_A.weight"


def changed(adapter: Adapter, **meta: object) -> Adapter:
    return dataclasses.replace(adapter, meta=adapter.meta.model_copy(update=meta))


def test_attaching_an_adapter_sets_its_weights() -> None:
    pipeline = tiny_pipeline()
    adapter = tiny_adapter(pipeline)
    attach_adapter(pipeline, adapter)
    for name, tensor in adapter_tensors(pipeline).items():
        assert torch.equal(tensor, adapter.tensors[name]), name


def test_an_adapter_of_another_base_or_shape_is_rejected() -> None:
    pipeline = tiny_pipeline()
    adapter = tiny_adapter(tiny_pipeline())
    with pytest.raises(InputError, match=f"trained on base {BASE}, but this base is {'f' * 32}"):
        check_adapter("f" * 32, pipeline, adapter)
    with pytest.raises(InputError, match=r"conv1.*\(4, 8, 3, 2\) does not fit"):
        check_adapter(BASE, pipeline, Adapter({**adapter.tensors, NAME: adapter.tensors[NAME][..., :2]}, adapter.meta))
    with pytest.raises(InputError, match=r"unet\.other.* is not a layer of this model"):
        check_adapter(BASE, pipeline, Adapter({**adapter.tensors, "unet.other": adapter.tensors[NAME]}, adapter.meta))
    with pytest.raises(InputError, match=r"does not fit"):
        check_adapter(BASE, pipeline, changed(adapter, config=adapter.meta.config.model_copy(update={"conv_dim": 3})))


def test_the_class_prompt_is_recorded_or_the_instance_prompt_without_its_identifier() -> None:
    adapter = tiny_adapter(tiny_pipeline())
    assert adapter.meta.class_prompt() == "background"
    assert changed(adapter, prior_prompt="").meta.class_prompt() == "background cracked"


def test_the_fingerprint_depends_on_the_effect_alone() -> None:
    adapter = tiny_adapter(tiny_pipeline())
    same = Adapter(dict(reversed(adapter.tensors.items())), adapter.meta)
    assert len(adapter.fingerprint) == 32
    assert same.fingerprint == adapter.fingerprint == changed(adapter, sources=(), seed=9).fingerprint
    others = [
        Adapter({**adapter.tensors, NAME: adapter.tensors[NAME] * 1.001}, adapter.meta),
        Adapter({**adapter.tensors, NAME: adapter.tensors[NAME].flatten()}, adapter.meta),
        changed(adapter, base="f" * 32),
        changed(adapter, config=adapter.meta.config.model_copy(update={"conv_alpha": 2.0})),
    ]
    assert len({adapter.fingerprint, *(other.fingerprint for other in others)}) == 5

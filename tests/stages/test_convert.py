from pathlib import Path

import pytest

from inandout.diffusion.base.base import open_base
from inandout.diffusion.base.config import BaseConfig
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.safetensors_io import load_adapter, save_adapter
from inandout.errors import InputError
from inandout.stages.config import ConvertConfig
from inandout.stages.convert import convert
from tests.diffusion.tiny import tiny_adapter


@pytest.fixture
def adapter(tiny_base: Path, tmp_path: Path) -> Path:
    base = open_base(BaseConfig(base=str(tiny_base)))
    tiny = tiny_adapter(base.pipeline)
    save_adapter(
        tmp_path / "a.safetensors", Adapter(tiny.tensors, tiny.meta.model_copy(update={"base": base.fingerprint}))
    )
    return tmp_path / "a.safetensors"


def test_a_round_trip_keeps_the_adapter(adapter: Path, tiny_base: Path) -> None:
    there, back = adapter.with_name("kohya.safetensors"), adapter.with_name("back.safetensors")
    convert(ConvertConfig.from_flat(adapter=str(adapter), out=str(there)))
    convert(ConvertConfig.from_flat(adapter=str(there), out=str(back), to="inandout", base=str(tiny_base)))
    assert load_adapter(back).fingerprint == load_adapter(adapter).fingerprint


def test_existing_files_and_other_formats_raise_an_error(adapter: Path) -> None:
    with pytest.raises(InputError, match="already exists"):
        convert(ConvertConfig.from_flat(adapter=str(adapter), out=str(adapter)))
    with pytest.raises(InputError, match="must end in"):
        convert(ConvertConfig.from_flat(adapter=str(adapter), out="adapter.ckpt"))

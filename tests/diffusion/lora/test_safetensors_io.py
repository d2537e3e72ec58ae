import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inandout.checkpoint import write_tensors
from inandout.diffusion.lora.adapter import Adapter
from inandout.diffusion.lora.kohya_file import export_kohya
from inandout.diffusion.lora.safetensors_io import META, load_adapter, read_tensors, save_adapter
from inandout.errors import InputError
from tests.diffusion.tiny import attach_adapter, tiny_adapter, tiny_pipeline

CONFIG = {"network_dim": 6, "network_alpha": 3, "conv_dim": 5, "conv_alpha": 2}


def draw(pipeline: StableDiffusionPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    return pipeline(
        "skt background", width=64, height=64, num_inference_steps=3, generator=generator, output_type="np"
    ).images  # fmt: skip


def ranks_and_scalings(pipeline: StableDiffusionPipeline) -> dict[str, tuple[int, float]]:
    """Return rank and scaling of every adapted layer."""
    return {
        f"{part}.{name}": (*layer.r.values(), *layer.scaling.values())
        for part in ("unet", "text_encoder")
        for name, layer in getattr(pipeline, part).named_modules()
        if hasattr(layer, "lora_A")
    }


def test_a_saved_adapter_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    adapter = tiny_adapter(tiny_pipeline())
    save_adapter(tmp_path / "adapter.safetensors", adapter)
    loaded = load_adapter(tmp_path / "adapter.safetensors")
    assert loaded.meta == adapter.meta
    assert loaded.fingerprint == adapter.fingerprint
    assert all(torch.equal(tensor, loaded.tensors[name]) for name, tensor in adapter.tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.safetensors"]


@pytest.mark.parametrize("config", [{}, CONFIG, {"conv_dim": 0}])
@pytest.mark.parametrize("write", [save_adapter, export_kohya])
def test_diffusers_loads_every_layer_with_its_rank_and_scaling(
    tmp_path: Path, write: Callable[[Path, Adapter], None], config: dict[str, float]
) -> None:
    path, ours, theirs = tmp_path / "adapter.safetensors", tiny_pipeline(), tiny_pipeline()
    adapter, without = tiny_adapter(ours, **config), draw(theirs)
    write(path, adapter)
    attach_adapter(ours, adapter)
    theirs.load_lora_weights(path)
    assert len(ranks_and_scalings(theirs)) == (96 if config.get("conv_dim") == 0 else 152)
    assert ranks_and_scalings(theirs) == ranks_and_scalings(ours)
    image = draw(ours)
    assert np.abs(draw(theirs) - image).max() < 1e-5
    assert np.abs(image - without).max() > 1e-2


def test_other_files_are_rejected(tmp_path: Path) -> None:
    path, adapter = tmp_path / "a.safetensors", tiny_adapter(tiny_pipeline())
    with pytest.raises(InputError, match="cannot be read"):
        load_adapter(path)
    path.write_bytes(b"\x80\x04 no tensors")
    with pytest.raises(InputError, match="not a complete safetensors file"):
        load_adapter(path)
    save_file(adapter.tensors, path)
    with pytest.raises(InputError, match="not an adapter of this program"):
        load_adapter(path)
    export_kohya(path, adapter)
    with pytest.raises(InputError, match="kohya's format; import it"):
        load_adapter(path)


@pytest.mark.parametrize("name", ["a.bin", "a.ckpt", "a.PT"])
def test_a_pickle_is_not_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"is a pickle, which can run code.*convert it to \.safetensors"):
        load_adapter(tmp_path / name)


def test_non_finite_values_are_rejected_by_name(tmp_path: Path) -> None:
    path, adapter = tmp_path / "a.safetensors", tiny_adapter(tiny_pipeline())
    name = "text_encoder.encoder.layers.1.mlp.fc2.lora_B.weight"
    adapter.tensors[name][0, 0] = torch.nan
    save_adapter(path, adapter)
    with pytest.raises(InputError, match=f"{name} holds NaN or infinite values"):
        load_adapter(path)


def test_a_header_with_unknown_or_invalid_fields_is_rejected(tmp_path: Path) -> None:
    path, adapter = tmp_path / "a.safetensors", tiny_adapter(tiny_pipeline())
    save_adapter(path, adapter)
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()[META])
    for wrong, field in (({**meta, "base": "short"}, "base"), ({**meta, "conv_rank": 4}, "conv_rank")):
        save_file(load_file(path), path, metadata={META: json.dumps(wrong)})
        with pytest.raises(InputError, match=f"{field} in the file's header"):
            load_adapter(path)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, adapter = tmp_path / "a.safetensors", tiny_adapter(tiny_pipeline())
    with pytest.raises(InputError, match="use an existing folder"):
        save_adapter(tmp_path / "none" / "a.safetensors", adapter)
    save_adapter(path, adapter)

    def run_out_of_room(tensors: object, file: Path, metadata: object) -> None:
        file.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inandout.checkpoint.save_file", run_out_of_room)
    with pytest.raises(InputError, match="No space left"):
        save_adapter(path, adapter)
    assert load_adapter(path).fingerprint == adapter.fingerprint
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_equal_tensors_and_headers_give_equal_files(tmp_path: Path) -> None:
    tensors = {f"layer {i}": torch.full((2, i + 1), float(i)) for i in range(6)}
    header = {name: f"{name} \u00fc" for name in "gfedcba"}
    files = set()
    for number in range(8):
        write_tensors(tmp_path / f"{number}.safetensors", tensors, header)
        files.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(files) == 1
    found, read = read_tensors(tmp_path / "0.safetensors")
    assert read == header
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())

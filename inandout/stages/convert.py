"""Entry point `convert`: convert adapters to and from the format of kohya-ss/sd-scripts, without a run."""

from pathlib import Path

from inandout.diffusion.base.base import open_base
from inandout.diffusion.lora.kohya_file import export_kohya, import_kohya
from inandout.diffusion.lora.safetensors_io import load_adapter, save_adapter
from inandout.errors import InputError
from inandout.hardware import HardwareConfig
from inandout.stages.config import ConvertConfig
from inandout.stages.finetune import find_adapter


def convert(config: ConvertConfig) -> None:
    """Convert an adapter to kohya's format, or from that of kohya, diffusers or peft for a base."""
    if not config.adapter:
        raise InputError("adapter is empty; give the run id of finetune, or a .safetensors file")
    given, out = find_adapter(config.adapter), Path(config.out)
    if out.suffix != ".safetensors":
        raise InputError(f"out = {out}: must end in .safetensors; give another name")
    if out.exists():
        raise InputError(f"out = {out}: already exists; give another name")
    if config.to == "kohya":
        export_kohya(out, load_adapter(given))
    else:
        base = open_base(config.base, HardwareConfig(device="cpu").open())
        save_adapter(out, import_kohya(given, base.pipeline, base.fingerprint))
    print(f"{out}: written")

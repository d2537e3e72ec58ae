"""Synthetic defects for surface inspection: in-distribution and out-of-distribution augmentation.

The names in `__all__` are the Python API. They are imported on first use, so `import inandout` is quick.
"""

from typing import TYPE_CHECKING

__version__ = "0.2.0"

__all__ = [
    "BackboneConfig",
    "BaseConfig",
    "Composition",
    "DataConfig",
    "DreamBoothConfig",
    "FitConfig",
    "Geometry",
    "HardwareConfig",
    "InputError",
    "MemSegConfig",
    "Sample",
    "SamplingConfig",
    "Scored",
    "ShotConfig",
    "TrainedClassifier",
    "build_classifier",
    "check_data",
    "evaluate",
    "fit",
    "load_adapter",
    "load_pixels",
    "merge",
    "mix",
    "open_base",
    "paired_difference",
    "predict",
    "read_data",
    "read_image",
    "read_manifest",
    "sample",
    "save_adapter",
    "synthesise",
    "train_adapter",
    "write_pool",
]

_MODULES = {
    "BackboneConfig": "classifier.config",
    "BaseConfig": "diffusion.base.config",
    "Composition": "diffusion.sample.guidance",
    "DataConfig": "data.config",
    "DreamBoothConfig": "diffusion.finetune.config",
    "FitConfig": "classifier.config",
    "Geometry": "data.config",
    "HardwareConfig": "hardware",
    "InputError": "errors",
    "MemSegConfig": "memseg.config",
    "Sample": "data.manifest",
    "SamplingConfig": "diffusion.sample.config",
    "Scored": "evaluation.metrics",
    "ShotConfig": "data.config",
    "TrainedClassifier": "stages.classify.trained_classifier",
    "build_classifier": "classifier.backbone",
    "check_data": "data.prepare",
    "evaluate": "evaluation.metrics",
    "fit": "classifier.training",
    "load_adapter": "diffusion.lora.safetensors_io",
    "load_pixels": "classifier.pixels",
    "merge": "diffusion.lora.merge",
    "mix": "mixing",
    "open_base": "diffusion.base.base",
    "paired_difference": "evaluation.paired_test",
    "predict": "classifier.training",
    "read_data": "data.prepare",
    "read_image": "data.images",
    "read_manifest": "data.manifest",
    "sample": "diffusion.sample.sampler",
    "save_adapter": "diffusion.lora.safetensors_io",
    "synthesise": "memseg.anomaly",
    "train_adapter": "diffusion.finetune.train_adapter",
    "write_pool": "memseg.pool",
}
"""Name to the module that defines it."""

if TYPE_CHECKING:
    from inandout.classifier.backbone import build_classifier
    from inandout.classifier.config import BackboneConfig, FitConfig
    from inandout.classifier.pixels import load_pixels
    from inandout.classifier.training import fit, predict
    from inandout.data.config import DataConfig, Geometry, ShotConfig
    from inandout.data.images import read_image
    from inandout.data.manifest import Sample, read_manifest
    from inandout.data.prepare import check_data, read_data
    from inandout.diffusion.base.base import open_base
    from inandout.diffusion.base.config import BaseConfig
    from inandout.diffusion.finetune.config import DreamBoothConfig
    from inandout.diffusion.finetune.train_adapter import train_adapter
    from inandout.diffusion.lora.merge import merge
    from inandout.diffusion.lora.safetensors_io import load_adapter, save_adapter
    from inandout.diffusion.sample.config import SamplingConfig
    from inandout.diffusion.sample.guidance import Composition
    from inandout.diffusion.sample.sampler import sample
    from inandout.errors import InputError
    from inandout.evaluation.metrics import Scored, evaluate
    from inandout.evaluation.paired_test import paired_difference
    from inandout.hardware import HardwareConfig
    from inandout.memseg.anomaly import synthesise
    from inandout.memseg.config import MemSegConfig
    from inandout.memseg.pool import write_pool
    from inandout.mixing import mix
    from inandout.stages.classify.trained_classifier import TrainedClassifier

else:  # type checkers would take every name for a valid one

    def __getattr__(name):
        """The object of this name, imported (PEP 562)."""
        if name in _MODULES:
            from importlib import import_module

            value = getattr(import_module(f"inandout.{_MODULES[name]}"), name)
        else:
            raise AttributeError(f"module 'inandout' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

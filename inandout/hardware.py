"""Device and floating-point precision of training, drawing and prediction, and errors of memory.

Only this module and `parallel.take_gpu` choose a device. Functions import PyTorch, because configurations do not need
it.
"""

import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from inandout.errors import InputError, brief

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?|mps", name):
        raise ValueError("must be auto, cpu, cuda, cuda:N or mps")
    return name


Device = Annotated[
    str, AfterValidator(_known_device), Field(description="auto (a CUDA GPU, else cpu), cpu, cuda, cuda:N or mps")
]
AnyPrecision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    Field(description="auto (bf16 on CUDA GPUs that support it, else fp16; fp32 elsewhere), fp32, bf16 or fp16"),
]


class HardwareConfig(BaseModel):
    """Requested device and precision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = "auto"
    precision: AnyPrecision = "auto"

    def open(self) -> "Hardware":
        """Return the device, which becomes the current one, and the precision.

        Raises:
            InputError: the device is not available, or does not compute in this precision.
        """
        device = find_device(self.device)
        return Hardware(device, _supported(self.precision, device))


class Hardware(NamedTuple):
    """Device and precision in use."""

    device: "torch.device"
    precision: Precision = "fp32"

    @property
    def dtype(self) -> "torch.dtype":
        """Type of the weights of UNet and text encoders."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which PyTorch computes products and convolutions in the precision."""
        import torch

        return torch.autocast(self.device.type, self.dtype, enabled=self.precision != "fp32")

    def tags(self) -> dict[str, str]:
        """Return run tags with the device and precision in use."""
        import torch

        name = f" ({torch.cuda.get_device_name(self.device)})" if self.device.type == "cuda" else ""
        return {"inandout.device": f"{self.device}{name}", "inandout.precision": self.precision}


def find_device(name: str = "auto") -> "torch.device":
    """Return a device; a GPU becomes the current one of this process.

    `auto` does not choose mps, on which the package has not been tested.

    Raises:
        InputError: the device is not available.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        _refuse_missing_gpu(device, count)
        if device.index is not None:
            torch.cuda.set_device(device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device = mps: PyTorch finds no Apple GPU; give device=cpu")
    return device


def _refuse_missing_gpu(device: "torch.device", count: int) -> None:
    if not count:
        raise InputError(
            f"device = {device}: PyTorch finds no CUDA GPU; give device=cpu, or install a build of PyTorch for the "
            "driver of the GPU"
        )
    if (device.index or 0) >= count:
        raise InputError(f"device = {device}: there are {count} GPUs; give cuda:0 to cuda:{count - 1}")


def _supported(requested: Precision | Literal["auto"], device: "torch.device") -> Precision:
    """Return the precision for `requested` on a device."""
    import torch

    if device.type != "cuda":
        if requested in ("bf16", "fp16"):
            raise InputError(
                f"precision = {requested}: needs a CUDA GPU, as it is about 200 times slower on most CPUs; use fp32"
            )
        return "fp32"
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if requested == "bf16" and not has_bf16:
        raise InputError("precision = bf16: this GPU only emulates it; use fp16")
    if requested == "auto":
        return "bf16" if has_bf16 else "fp16"
    return requested


class OutOfMemoryError(InputError):
    """The device or the machine has too little free memory."""


def explain_memory(error: BaseException) -> OutOfMemoryError:
    """Return the error to raise in place of one for which `is_out_of_memory` is true."""
    return OutOfMemoryError(
        f"out of memory ({brief(error)[:200]}); reduce width and height, sample_batch (drawing), batch_size "
        "(classifier), micro_batch (finetune) or workers; finetune also needs less with gradient_checkpointing=true, "
        "and a GPU with precision=bf16 or fp16"
    )


_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
"""In messages of CUDA, MPS, bitsandbytes, and the CPU's allocators on Linux and Windows."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of PyTorch, NumPy or Python means that memory could not be allocated."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )

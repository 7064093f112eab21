"""The machine that numbers are of."""

import platform
from typing import Any

import torch

from obsdiff import devices
from obsdiff.onednn import cpuinfo
from obsdiff.source import Source


def machine(source: Source) -> dict[str, Any]:
    """What the timings are of: the GPU or processor, the weights' dtype, whether float32 products may be TF32."""
    return {"device": hardware(source.device), "dtype": source.dtype, "tf32": devices.TF32}


def hardware(device: str) -> str:
    """The name of a GPU or of the processor."""
    return str(torch.cuda.get_device_name(device)) if device.startswith("cuda") else processor()


def processor() -> str:
    """The processor's name where the system tells it, else its architecture alone."""
    name = cpuinfo("model name")
    return f"{platform.machine()} CPU" + (f", {name}" if name else "")

"""Where a pipeline's weights are and how they are loaded. Errors are raised on construction, before anything loads."""

from dataclasses import dataclass

from obsdiff import devices
from obsdiff.typed import check_types, require

DTYPES = ("float32", "bfloat16", "float16")
OFFLOAD = ("none", "model", "sequential")


@dataclass(frozen=True)
class Source:
    """Where a pipeline's weights are and how they are loaded."""

    model: str
    """hub id or local diffusers folder"""
    revision: str | None = None
    """hub branch, tag or commit"""
    single_file: str | None = None
    """.safetensors file with the weights, as ComfyUI has them; model has the configurations and what it lacks"""
    variant: str | None = None
    """weight file variant, such as fp16"""
    dtype: str = "float32"
    """float32, bfloat16 or float16"""
    device: str = "cpu"
    """torch device"""
    offload: str = "none"
    """none, model or sequential (diffusers' CPU offload)"""
    without: tuple[str, ...] = ()
    """components left out, such as text_encoder_3 tokenizer_3 (Stable Diffusion 3 without T5)"""
    local_files_only: bool = True
    """never download; --no-local-files-only to fetch from the hub"""

    def __post_init__(self) -> None:
        check_types(self)
        require(self.dtype in DTYPES, "dtype", self.dtype, f"one of {', '.join(DTYPES)}")
        require(self.offload in OFFLOAD, "offload", self.offload, f"one of {', '.join(OFFLOAD)}")
        require(bool(self.model.strip()), "model", self.model, "a hub id or a diffusers folder")
        file = self.single_file
        require(file is None or file.endswith(".safetensors"), "single_file", file, "a .safetensors file")
        require(file is None or self.variant is None, "variant", self.variant, "free with single_file; leave it out")
        devices.check(self.device)

    @property
    def bytes(self) -> int:
        """Of a number in its dtype."""
        return 4 if self.dtype == "float32" else 2

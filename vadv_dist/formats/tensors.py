"""Write safetensors files, with the system's error if the disk is full."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(tensors: "Mapping[str, Tensor]", path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a file.

    Raises:
        OSError: the disk is full, or a quota is exceeded.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError:
        # It contains the system's error only as text; allocating the same space again raises the error itself.
        with path.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, sum(tensor.nbytes for tensor in tensors.values())))
        raise

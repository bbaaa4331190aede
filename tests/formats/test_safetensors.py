import errno
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vadv_dist.formats.tensors import save_tensors


def test_a_failed_write_raises_the_systems_error(tmp_path: Path) -> None:
    """safetensors has the error only as text; a file size limit simulates a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_tensors({"a": torch.zeros(1 << 20)}, tmp_path / "x.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    save_tensors({"a": torch.ones(3)}, tmp_path / "x.safetensors", {"format": "pt"})
    assert load_file(tmp_path / "x.safetensors")["a"].tolist() == [1, 1, 1]

"""`vadv --version`: versions of vadv and of what its results depend on."""

import argparse
import contextlib
from typing import Any

from vadv_dist import __version__

_STACK = ("torch", "transformers", "ray", "deepspeed", "pyarrow", "numpy")


class PrintVersions(argparse.Action):
    """Prints versions, a line each, without importing the packages."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import importlib.metadata
        import platform

        print(f"vadv {__version__}")
        print(f"python {platform.python_version()}")
        for name in _STACK:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                print(f"{name} {importlib.metadata.version(name)}")
        parser.exit()

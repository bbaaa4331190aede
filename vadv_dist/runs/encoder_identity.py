"""Identify a text encoder by the SHA-256 of its files, independent of its name and location."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vadv_dist.models.pretrained import encoder_folder
from vadv_dist.storage import copy_of_folder, read_json

# Files from which transformers builds a tokenizer.
_TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges*", "*.model", "*.spm", "*.tiktoken", "bpe.*", "dict.txt"),
    *("special_tokens_map.json", "added_tokens.json", "entity_vocab.json", "emoji.json"),
)
# Keys of a config.json that do not affect the model.
_IGNORED_KEYS = ("_name_or_path", "transformers_version")


@dataclass(frozen=True)
class EncoderIdentity:
    """The encoder that a run was trained with.

    Attributes:
        place: absolute folder, or the name in the configuration.
        tokenizer: SHA-256 of its config and tokenizer files; None if they are not on this machine.
        weights: SHA-256 of its pretrained weights; None if training starts from random ones, or if they are not on
            this machine yet.
    """

    place: str
    tokenizer: str | None
    weights: str | None

    @classmethod
    def of(cls, name_or_path: str, *, weights: bool) -> "EncoderIdentity":
        """Identify an encoder.

        Args:
            name_or_path: folder, s3:// prefix, `package://NAME/FOLDER`, or name on the Hugging Face Hub.
            weights: whether to hash its weights, which reads them completely, once per process.
        Raises:
            UserError: it is in a package that is not installed.
        """
        folder = encoder_folder(copy_of_folder(name_or_path))
        if folder is None:
            return cls(name_or_path, None, None)
        is_path = Path(name_or_path).expanduser().is_dir()
        return cls(
            str(folder.resolve()) if is_path else name_or_path,
            _tokenizer_digest(folder),
            _weights_digest(folder) if weights else None,
        )

    def is_as(self, other: "EncoderIdentity") -> bool:
        """Whether two encoders are the same, as far as is known."""
        pairs = ((self.tokenizer, other.tokenizer), (self.weights, other.weights))
        return all(a == b for a, b in pairs if a is not None and b is not None)

    def __str__(self) -> str:
        known = [f"{name} {d[:12]}" for name, d in (("tokenizer", self.tokenizer), ("weights", self.weights)) if d]
        return f"{self.place} ({', '.join(known) or 'fingerprint unknown'})"


def _tokenizer_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    config = read_json(folder / "config.json")
    kept = {key: value for key, value in config.items() if key not in _IGNORED_KEYS}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    files = {path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(files, key=lambda path: path.name):
        digest.update(f"\n{path.name} {_sha256(path)}".encode())
    return digest.hexdigest()


def _weights_digest(folder: Path) -> str | None:
    """Hash the files that transformers loads: safetensors if there are any."""
    found = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not found:
        return None
    return hashlib.sha256("\n".join(f"{path.name} {_sha256(path)}" for path in found).encode()).hexdigest()


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=256)  # trials of a search start from the same files
def _sha256_of(path: str, size: int, mtime_ns: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

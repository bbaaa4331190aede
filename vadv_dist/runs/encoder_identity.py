"""What identifies a text encoder, whatever it is called and wherever it lies: SHA-256 of the files that decide."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vadv_dist.models.pretrained import encoder_folder
from vadv_dist.storage import read_json

# Files from which transformers builds a tokenizer.
_TOKENIZER_FILES = (
    *("tokenizer*", "vocab*", "merges*", "*.model", "*.spm", "*.tiktoken", "bpe.*", "dict.txt"),
    *("special_tokens_map.json", "added_tokens.json", "entity_vocab.json", "emoji.json"),
)
# Keys of a config.json that say who wrote it.
_NOT_DECISIVE = ("_name_or_path", "transformers_version")


@dataclass(frozen=True)
class EncoderIdentity:
    """An encoder as a run was trained with it.

    Attributes:
        place: absolute folder, or the name that the configuration gives.
        tokenizer: SHA-256 of its config and tokenizer files; None where they are not on this machine.
        weights: SHA-256 of the weights that training starts from; None where it starts from random ones, or where they
            are not on this machine yet.
    """

    place: str
    tokenizer: str | None
    weights: str | None

    @classmethod
    def of(cls, name_or_path: str, *, weights: bool) -> "EncoderIdentity":
        """Identify an encoder.

        Args:
            name_or_path: folder, `package://NAME/FOLDER`, or name on the Hugging Face hub.
            weights: whether its weights count; they are read as a whole, once in a process.
        Raises:
            UserError: it is in a package that is not installed.
        """
        folder = encoder_folder(name_or_path)
        if folder is None:
            return cls(name_or_path, None, None)
        is_path = Path(name_or_path).expanduser().is_dir()
        return cls(
            str(folder.resolve()) if is_path else name_or_path,
            _tokenizer_digest(folder),
            _weights_digest(folder) if weights else None,
        )

    def is_as(self, other: "EncoderIdentity") -> bool:
        """Whether two are one encoder, as far as is known of both."""
        pairs = ((self.tokenizer, other.tokenizer), (self.weights, other.weights))
        return all(a == b for a, b in pairs if a is not None and b is not None)

    def __str__(self) -> str:
        known = [f"{name} {d[:12]}" for name, d in (("tokenizer", self.tokenizer), ("weights", self.weights)) if d]
        return f"{self.place} ({', '.join(known) or 'fingerprint unknown'})"


def _tokenizer_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    config = read_json(folder / "config.json")
    decisive = {key: value for key, value in config.items() if key not in _NOT_DECISIVE}
    digest.update(json.dumps(decisive, sort_keys=True).encode())
    files = {path for pattern in _TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(files, key=lambda path: path.name):
        digest.update(f"\n{path.name} {_sha256(path)}".encode())
    return digest.hexdigest()


def _weights_digest(folder: Path) -> str | None:
    """Of the files that transformers takes: safetensors where there are any."""
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

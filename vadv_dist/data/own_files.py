"""Which files of a data set's folder belong to it."""

from vadv_dist.data.dataset import MANIFEST, PROMPTS_NAME, Dataset
from vadv_dist.storage import Location, files_below, read_json

# Folders that `vadv synth` writes beside the shards.
_ENCODERS = ("encoder/", "encoders/")


def listed_parquet(dataset: Dataset) -> set[str]:
    """The Parquet files that `dataset.json` lists: shards, their lists, and records of what was read."""
    listed = set(dataset.manifest.records)
    for split, raw in read_json(dataset.root / MANIFEST)["splits"].items():
        listed |= set(dataset.manifest.shards(split).paths.to_pylist())
        listed |= {part["path"] for part in raw.get("parts", ())}
    return listed


def foreign_file(root: Location) -> str | None:
    """A file in a data set's folder that is no part of it; None if there is none.

    Raises:
        UserError: it is not a data set of this version.
    """
    listed = listed_parquet(Dataset.open(root)) | {MANIFEST, PROMPTS_NAME}
    others = (name for name in files_below(root) if name not in listed and not name.startswith(_ENCODERS))
    return min(others, default=None)

"""Read the audio-visual features of VEGAS (`vegas_feature_norm.h5`) into a data set.

The file has `visual_train`, `visual_test` [R, D], `audio_train`, `audio_test` [R, E] and the classes `lab_train`,
`lab_test`, either numbers [R] or [R, 1], or one-hot rows [R, C]. Shape letters: R rows of a split, D and E widths,
C classes.

Labels are in memory; features are read a few megabytes at a time.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vadv_dist.data.readers.hdf5 import ArrayInfo, Hdf5File
from vadv_dist.data.readers.ingestion import IngestSummary, bad_row, ingesting, new_dataset, printable
from vadv_dist.data.readers.sequences import Framing
from vadv_dist.data.schema import Array, Clip, FeatureSpec, IntArray, LabelSpec
from vadv_dist.errors import UserError
from vadv_dist.storage import local_path

SPLITS_OF_FILE = ("train", "test")
_MAX_CLASSES = 10_000


def ingest_vegas(
    file: str | Path,
    out: str | Path,
    *,
    num_classes: int = 10,
    class_names: Sequence[str] = (),
    valid_fraction: float = 0.1,
    seed: int = 1,
    framing: Framing | None = None,
    bad_rows: str = "drop",
    source: str | None = None,
) -> IngestSummary:
    """Create a data set of audio and visual vectors with classes; its clips have no text.

    The file has no validation split: one is cut from train, with the same share of every class.

    Args:
        file: the HDF5 file.
        out: the folder to create.
        num_classes: C; labels are 0 to C - 1, or 1 to C in the whole file.
        class_names: names of the classes in the order of their numbers, if known.
        valid_fraction: share of every class of train that becomes the validation split; 0 for none.
        seed: determines which rows.
        framing: treatment of NaN and infinity, and the stored type; every vector is one frame.
        bad_rows: `drop` or `error`, for rows that cannot become a clip.
        source: source name of all clips; by default that of the file.

    Raises:
        UserError: the file or an option is invalid.
    """
    framing = replace(framing or Framing(), frames=1)
    if not 2 <= num_classes <= _MAX_CLASSES:
        raise UserError(f"--classes is {num_classes}, expected a number from 2 to {_MAX_CLASSES:,}.")
    if class_names and len(class_names) != num_classes:
        raise UserError(f"--class-names has {len(class_names)} names for {num_classes} classes. Name each class once.")
    if repeated := [name for name, times in Counter(class_names).items() if times > 1]:
        raise UserError(f"--class-names has {repeated[0]!r} more than once. Name each class differently.")
    if not 0 <= valid_fraction < 1:
        raise UserError(f"--valid-fraction is {valid_fraction:g}, expected a fraction from 0 to below 1.")
    if seed < 0:
        raise UserError(f"--seed is {seed}, expected an integer from 0.")
    path, root = local_path(file), new_dataset(out)
    with Hdf5File(path, "--file") as opened:
        arrays = _describe(opened)
        labels = {split: _labels(opened, split, num_classes) for split in SPLITS_OF_FILE}
        first = _first_class(labels, num_classes, class_names, path)
        classes = {
            split: np.where((known >= first) & (known < first + num_classes), known - first, -1)
            for split, known in labels.items()
        }
        to_valid = stratified_cut(classes["train"], valid_fraction, seed)
        with ingesting(
            root,
            made_by="vadv ingest vegas",
            files=[path],
            options={
                "num_classes": num_classes,
                "first_class_in_file": first,
                "valid_fraction": valid_fraction,
                "valid_split": "cut from train by seed, the same share of every class" if valid_fraction else "none",
                "seed": seed,
            },
            features={
                "visual": framing.spec("visual", arrays["visual_train"].shape[1]),
                "audio": FeatureSpec((arrays["audio_train"].shape[1],), framing.dtype),
            },
            label=LabelSpec.of_classes(num_classes, class_names),
            bad_rows=bad_rows,
            framing=framing,
        ) as ingestion:
            for split in SPLITS_OF_FILE:
                for row, (visual, audio) in enumerate(_vectors(opened, split, arrays)):
                    with ingestion.row(path, f"{split} row {row}") as where:
                        label = int(classes[split][row])
                        if label < 0:
                            raise bad_row("no class", where, f"lab_{split} is not a class.")
                        features = {
                            "visual": ingestion.frames("visual", visual, where),
                            "audio": ingestion.frames("audio", audio, where),
                        }
                        # The file does not say which rows belong to one video, and another file's rows are others.
                        name, origin = f"{split}_{row:05d}", source or path.stem
                        clip = Clip(name, f"{origin}_{name}", "", float(label), origin, features)
                        moved = split == "train" and bool(to_valid[row])
                        ingestion.add("valid" if moved else split, clip, where)
                        ingestion.cut_from_train += moved
    return ingestion.summary()


def stratified_cut(classes: IntArray, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose `fraction` of the rows of every class, rounded, at least one and never all.

    Args:
        classes: class of each row, [R]; rows below 0 have none and are not chosen.

    Returns:
        whether each row is chosen, [R].
    """
    chosen = np.zeros(len(classes), bool)
    if fraction:
        generator = np.random.default_rng(seed)
        for one in np.unique(classes[classes >= 0]):
            rows = np.flatnonzero(classes == one)
            count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
            chosen[generator.permutation(rows)[:count]] = True
    return chosen


def _describe(file: Hdf5File) -> dict[str, ArrayInfo]:
    """Shape and kind of each of the six arrays."""
    wanted = [f"{kind}_{split}" for kind in ("lab", "visual", "audio") for split in SPLITS_OF_FILE]
    present = file.names("/")
    arrays: dict[str, ArrayInfo] = {}
    for name in wanted:
        if name not in present:
            shown = ", ".join(printable(known) for known in present[:20]) or "nothing"
            raise UserError(f"{file.path} has no {name!r} (it has: {shown}), expected {', '.join(wanted)}.")
        info = arrays[name] = file.describe(name)
        kind, _, split = name.partition("_")
        axes, layout = ((1, 2), "[R], [R, 1] or [R, C]") if kind == "lab" else ((2,), "[R, D]")
        if info.kind == "text" or len(info.shape) not in axes or 0 in info.shape:
            raise UserError(f"{file.path} has {name} of shape {list(info.shape)}, expected numbers of shape {layout}.")
        if kind != "lab":
            expected = (arrays[f"lab_{split}"].shape[0], arrays[f"{kind}_train"].shape[1])
            if info.shape != expected:
                raise UserError(
                    f"{file.path} has {name} of shape {list(info.shape)}, expected {list(expected)}: as many rows as "
                    f"lab_{split}, and the width of {kind}_train."
                )
    return arrays


def _labels(file: Hdf5File, split: str, num_classes: int) -> IntArray:
    """Class of each row in the file's numbering, [R]; -1 for rows without a class."""
    values = file.numbers(f"lab_{split}").astype(np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1:
        whole = (values >= 0) & (values <= _MAX_CLASSES) & (np.floor(values) == values)
        return np.where(whole, values, -1).astype(np.int64)
    if values.shape[1] != num_classes:
        raise UserError(
            f"{file.path} has lab_{split} of shape {list(values.shape)}, expected {num_classes} columns. Check "
            "--classes."
        )
    single = (values == 1).sum(axis=1) == 1
    single &= (values == 0).sum(axis=1) == num_classes - 1
    return np.where(single, values.argmax(axis=1), -1).astype(np.int64)


def _first_class(labels: dict[str, IntArray], num_classes: int, class_names: Sequence[str], path: Path) -> int:
    """Whether the file counts classes from 0 or from 1; numbers above its classes belong to rows without a class."""
    present = {int(value) for values in labels.values() for value in np.unique(values[values >= 0])}
    known = {value for value in present if value <= num_classes}
    if not known:
        raise UserError(f"{path} has no class from 0 to {num_classes} in its labels. Check --classes.")
    lowest, highest = min(known), max(known)
    while highest >= num_classes and highest + 1 in present:
        highest += 1
    if highest < num_classes:
        if class_names and lowest == 1:
            raise UserError(
                f"{path} has classes from 1 to {highest}, so it is not clear whether they are counted from "
                f"0 or from 1, and which names they have. Use --classes {highest} if they are counted from "
                "1, or leave --class-names out."
            )
        return 0
    if lowest == 0 or highest > num_classes:
        count = highest if lowest else highest + 1
        raise UserError(
            f"{path} has classes from {lowest} to {highest}, more than the {num_classes} given. Use --classes {count}."
        )
    return 1


def _vectors(file: Hdf5File, split: str, arrays: dict[str, ArrayInfo]) -> Iterator[tuple[Array, Array]]:
    """Visual and audio vector of each row, [1, D] and [1, E], read a few megabytes at a time."""
    names = (f"visual_{split}", f"audio_{split}")
    num_rows, step = arrays[names[0]].shape[0], min(arrays[name].rows_per_piece for name in names)
    for start in range(0, num_rows, step):
        visual, audio = (file.numbers(name, start, min(start + step, num_rows)) for name in names)
        yield from zip(visual[:, None], audio[:, None], strict=True)

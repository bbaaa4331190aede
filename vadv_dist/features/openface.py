"""Read the output of OpenFace 2 for a clip: its CSV of landmarks, and its folder of aligned face crops.

`FeatureExtraction -f clip.mp4` writes `clip.csv` and, with `-simalign`, `clip_aligned/frame_det_00_000001.bmp …`.
Both are looked up under names that are unique to this clip (`listing.own_names`).
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow

from vadv_dist.errors import UserError, VadvError, require_memory
from vadv_dist.features.frames import Image
from vadv_dist.features.openface_times import Coverage
from vadv_dist.features.timeline import BadClipError
from vadv_dist.features.tracks import Floats
from vadv_dist.formats.csv_lines import bounded_lines
from vadv_dist.storage import Location, open_binary

_CROP = re.compile(r"frame_det_(\d+)_(\d+)\.(?:bmp|png|jpe?g)", re.IGNORECASE)
_MAX_CROP_PIXELS = 4096 * 4096  # OpenFace writes 112 × 112 by default
_WHOLE_CROP = np.array([0.0, 0.0, 1.0, 1.0])


@dataclass(frozen=True)
class Output:
    """OpenFace's output for a clip or for its video.

    Attributes:
        name: its name.
        crops: folder of aligned crops.
        landmarks: the CSV.
    """

    name: str
    crops: Location | None
    landmarks: Location | None


@dataclass(frozen=True)
class Faces:
    """The faces of an OpenFace file, frame by frame.

    Attributes:
        coverage: the frames with rows in the file.
        boxes: per frame of the coverage, a box for each good face, in pixels of OpenFace's input, [F, 4].
        crops: per frame, the crop of each of these faces; empty if there are no crops.
    """

    coverage: Coverage
    boxes: list[Floats]
    crops: list[list[Location]]


def find_output(folder: Location, names: Sequence[str]) -> Output | None:
    """Find the output under the first of a clip's names that OpenFace used; None if it has not seen the clip."""
    for name in names:
        last = name.rpartition("/")[2]
        crops = next((c for c in (folder / f"{name}_aligned", folder / name / f"{last}_aligned") if c.is_dir()), None)
        landmarks = next((c for c in (folder / f"{name}.csv", folder / name / f"{last}.csv") if c.is_file()), None)
        if crops is not None or landmarks is not None:
            return Output(name, crops, landmarks)
    return None


def read_faces(output: Output, *, min_score: float) -> Faces | None:
    """Read all faces that OpenFace is confident of; None if the folder of crops is empty.

    Crops without a CSV have neither positions nor the number of frames. Of several faces, the one with the most frames
    is used.

    Args:
        output: the CSV with 2D landmarks (`-2Dfp`), the crops, or both.
        min_score: minimum confidence of a face.
    Raises:
        BadClipError: the CSV is damaged or of another kind.
    """
    crops = {} if output.crops is None else _crop_files(output.crops)
    if output.crops is not None and not crops:
        return None
    if output.landmarks is None:
        [(face, _)] = Counter(face for _, face in crops).most_common(1)
        numbers = sorted(number for number, other in crops if other == face)
        return Faces(
            Coverage(output.name, numbers, [], is_complete=False),
            [_WHOLE_CROP[None]] * len(numbers),
            [[crops[number, face]] for number in numbers],
        )
    return _from_landmarks(output.landmarks, crops if output.crops is not None else None, min_score)


def _from_landmarks(file: Location, crops: dict[tuple[int, int], Location] | None, min_score: float) -> Faces:
    header, rows = _rows(file)
    place = {name: column for column, name in enumerate(header)}
    across = [place[name] for name in header if re.fullmatch(r"x_\d+", name)]
    down = [place[name] for name in header if re.fullmatch(r"y_\d+", name)]
    if not across or not down or "timestamp" not in place:
        raise BadClipError(f"OpenFace's {file.name} has no columns timestamp, x_0 … and y_0 … (run it with -2Dfp)")
    if crops is not None and "frame" not in place:
        raise BadClipError(f"OpenFace's {file.name} has no column frame, which the crops are matched by")
    values = np.array(rows, np.float64).reshape(-1, len(header))
    if not len(values):
        raise BadClipError(f"OpenFace's {file.name} has no rows")
    times = values[:, place["frame" if "frame" in place else "timestamp"]]
    if not np.isfinite(values[:, [place["timestamp"]]]).all() or not np.isfinite(times).all():
        raise BadClipError(f"OpenFace's {file.name} has frames without times")
    ids = values[:, place["face_id"]] if "face_id" in place else np.zeros(len(values))
    boxes_N4 = np.stack([f(values[:, columns], axis=1) for f in (np.min, np.max) for columns in (across, down)], axis=1)
    good = np.isfinite(boxes_N4).all(axis=1) & (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(axis=1)
    if "success" in place:
        good &= values[:, place["success"]] > 0
    if "confidence" in place:
        good &= values[:, place["confidence"]] >= min_score
    if crops is not None:
        good &= np.array([(int(n), int(face)) in crops for n, face in zip(times, ids, strict=True)])
    frames, first, frame_of_N = np.unique(times, return_index=True, return_inverse=True)
    stamps = values[first, place["timestamp"]]
    if (np.diff(stamps) <= 0).any():
        raise BadClipError(f"OpenFace's {file.name} has times that do not increase with the frames")
    mine: list[list[int]] = [[] for _ in frames]
    for row in np.flatnonzero(good):
        mine[frame_of_N[row]].append(int(row))
    numbers = [int(n) for n in frames] if "frame" in place else []
    gaps = np.diff(stamps)
    complete = (
        numbers == list(range(1, len(numbers) + 1)) if numbers else bool((gaps < 1.5 * np.median(gaps)).all())
    ) and len(set(ids.tolist())) == 1
    return Faces(
        Coverage(file.name, numbers, stamps.tolist(), is_complete=complete),
        [boxes_N4[rows] for rows in mine],
        [] if crops is None else [[crops[int(times[r]), int(ids[r])] for r in rows] for rows in mine],
    )


def _rows(file: Location) -> tuple[list[str], list[list[float]]]:
    try:
        with io.TextIOWrapper(open_binary(file), encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(bounded_lines(lines, file.name), skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [[float(cell) for cell in row] for row in reader if row]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error, UserError) as error:
        raise BadClipError(f"OpenFace's {file.name} is unreadable: {error}") from None
    if any(len(row) != len(header) for row in rows):
        raise BadClipError(f"OpenFace's {file.name} is truncated")
    return header, rows


def _crop_files(folder: Location) -> dict[tuple[int, int], Location]:
    """Crops by (frame number from 1, id of the face)."""
    found: dict[tuple[int, int], Location] = {}
    files: list[Location] = list(folder.iterdir())
    for path in sorted(files, key=lambda path: path.name):
        match = _CROP.fullmatch(path.name)
        if match:
            found.setdefault((int(match[2]), int(match[1])), path)
    return found


def read_crop(path: Location) -> Image:
    """Read one aligned crop as RGB.

    Raises:
        BadClipError: it cannot be read.
    """
    try:
        with open_binary(path) as file, Pillow.open(file) as picture:
            if math.prod(picture.size) > _MAX_CROP_PIXELS:
                raise BadClipError(f"it has {picture.width} × {picture.height} pixels")
            return np.asarray(picture.convert("RGB"), np.uint8)
    except VadvError:  # from an object store
        raise
    except Exception as error:  # for damaged images Pillow raises SyntaxError, struct.error and others
        require_memory()
        raise BadClipError(f"OpenFace's {path.name} is unreadable: {error}") from None

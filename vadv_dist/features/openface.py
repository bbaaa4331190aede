"""Reads what OpenFace 2 wrote for a clip: its CSV of landmarks, or its folder of aligned face crops.

`FeatureExtraction -f clip.mp4` writes `clip.csv` and, with `-simalign`, `clip_aligned/frame_det_00_000001.bmp …`.
Both are looked for under the clip's id and under the name of its file.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vadv_dist.errors import UserError, VadvError
from vadv_dist.features.frames import Image
from vadv_dist.features.timeline import BadClipError
from vadv_dist.features.tracks import Floats
from vadv_dist.storage import Location, location, open_binary

_CROP = re.compile(r"frame_det_(\d+)_(\d+)\.(?:bmp|png|jpe?g)", re.IGNORECASE)


def find_output(folder: Location, clip_id: str, path: str) -> Location | None:
    """The folder of aligned crops of a clip, else its CSV, else None: OpenFace saw no such clip."""
    for stem in (clip_id, Path(path).stem):
        for crops in (folder / f"{stem}_aligned", folder / stem / f"{stem}_aligned"):
            if crops.is_dir():
                return crops
        if (landmarks := folder / f"{stem}.csv").is_file():
            return landmarks
    return None


def read_boxes(file: Location, times_s: Sequence[float], *, min_score: float) -> Floats:
    """Boxes around the landmarks of the largest face at given times, [T, 4]; NaN where there is none.

    Args:
        file: OpenFace's CSV with 2D landmarks (`-2Dfp`); its times are those of the clip's own video.
        times_s: in seconds from the video's first frame.
        min_score: rows of a smaller confidence are left out.
    Raises:
        BadClipError: the file is not such a CSV.
    """
    try:
        with io.TextIOWrapper(open_binary(file), encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [[float(cell) for cell in row] for row in reader if row]
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise BadClipError(f"OpenFace's {file.name} is unreadable: {error}") from None
    place = {name: column for column, name in enumerate(header)}
    across = [place[name] for name in header if re.fullmatch(r"x_\d+", name)]
    down = [place[name] for name in header if re.fullmatch(r"y_\d+", name)]
    if not across or not down or "timestamp" not in place:
        raise BadClipError(f"OpenFace's {file.name} has no columns timestamp, x_0 … and y_0 … (run it with -2Dfp)")
    if any(len(row) != len(header) for row in rows):
        raise BadClipError(f"OpenFace's {file.name} is cut off")
    best: dict[float, tuple[float, Floats]] = {}
    for row in rows:
        good = row[place["success"]] > 0 if "success" in place else True
        if not good or ("confidence" in place and row[place["confidence"]] < min_score):
            continue
        xs, ys = [row[c] for c in across], [row[c] for c in down]
        box = np.array([min(xs), min(ys), max(xs), max(ys)])
        area = float(np.prod(box[2:] - box[:2]))
        if math.isfinite(area) and area > best.get(row[place["timestamp"]], (0.0, box))[0]:
            best[row[place["timestamp"]]] = (area, box)
    seen = sorted({row[place["timestamp"]] for row in rows})
    boxes = np.full((len(times_s), 4), np.nan)
    for i, wanted in enumerate(times_s):
        if seen:
            nearest = min(seen, key=lambda t: abs(t - wanted))
            if nearest in best:
                boxes[i] = best[nearest][1]
    return boxes


def read_crops(folder: Location, count: int) -> list[Image] | None:
    """Aligned crops at evenly spaced frames of a clip; None where there is none.

    Of several faces in a frame, the first that OpenFace numbered is taken. A frame without a crop takes the nearest.

    Args:
        folder: OpenFace's `…_aligned`.
        count: crops to return.
    Raises:
        BadClipError: a crop cannot be read.
    """
    from PIL import Image as Pillow

    files: dict[int, Location] = {}
    there: list[Location] = list(folder.iterdir())
    for path in sorted(there, key=lambda path: path.name):
        found = _CROP.fullmatch(path.name)
        if found:
            files.setdefault(int(found[2]), path)
    if not files:
        return None
    numbers = np.array(sorted(files))
    wanted = numbers[0] + (np.arange(count) + 0.5) / count * (numbers[-1] - numbers[0] + 1) - 0.5
    images = []
    for number in wanted:
        path = files[int(numbers[np.abs(numbers - number).argmin()])]
        try:
            with open_binary(path) as file, Pillow.open(file) as picture:
                images.append(np.asarray(picture.convert("RGB"), np.uint8))
        except VadvError:  # of an object store
            raise
        except Exception as error:  # a damaged picture makes Pillow raise SyntaxError, struct.error and others
            raise BadClipError(f"OpenFace's {path.name} is unreadable: {error}") from None
    return images


def require_folder(path: str) -> Location:
    """The folder of OpenFace's output.

    Raises:
        UserError: there is none.
    """
    folder = location(path)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder. Set faces.path to the folder that OpenFace wrote into (-out_dir).")
    return folder

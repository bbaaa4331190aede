"""Draw what an extraction saw: sampled frames of clips, with their face boxes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from vadv_dist.data.dataset import Dataset
from vadv_dist.data.schema import SPLITS
from vadv_dist.errors import UserError
from vadv_dist.features.assemble import SOURCES_NAME
from vadv_dist.features.clip_files import open_clip
from vadv_dist.features.frames import READER_VERSION, Span, Video, to_image
from vadv_dist.features.timeline import BadClipError
from vadv_dist.formats.parquet import read_table
from vadv_dist.storage import Location, atomic_file, join, local_copy, location

_CLIPS_PER_SPLIT = 4
_FRAMES = 8
_TILE_WIDTH = 200
_CAPTION_HEIGHT = 18
# A strip beside the words of a clip: twice as many pixels as it is shown with.
_STRIP_FRAMES, _STRIP_TILE_WIDTH = 5, 144
_BOX_COLOUR, _INK, _PAPER = (60, 220, 90), (230, 230, 230), (24, 24, 28)


def write_contact_sheets(uri: str | Location, folder: str | Location) -> list[Location]:
    """Write one picture per split, `<folder>/<split>.png`: a row of frames per clip with the face boxes.

    Args:
        uri: a data set made by `vadv extract`; the clips must still be in their place.
        folder: output folder, created if necessary.
    Raises:
        UserError: there is no such data set, it was not made by `vadv extract`, or none of its clips can be found.
    """
    dataset, target = Dataset.open(uri), location(folder)
    root = _root_of(dataset)
    if root is None:
        raise UserError(
            f"{dataset.root} was not made by vadv extract, so there are no pictures to draw. Leave out --pictures."
        )
    if (made_with := dataset.manifest.provenance.get("reader")) != READER_VERSION:
        raise UserError(
            f"{dataset.root} was extracted by version {made_with or 1} of the video reader, and this is version "
            f"{READER_VERSION}: the pictures might not show the encoded frames. Leave out --pictures."
        )
    rows = _sources(dataset)
    written: list[Location] = []
    faults = []
    for split in (split for split in SPLITS if split in dataset.manifest.splits):
        mine = [row for row in rows if row["split"] == split]
        # Show a clip without a face first, because it needs checking.
        first = min(mine, key=lambda row: row["boxes"] is not None)
        places = np.linspace(0, len(mine) - 1, min(_CLIPS_PER_SPLIT, len(mine))).round().astype(int)
        strips = []
        for row in [first, *(mine[i] for i in places if mine[i] is not first)][:_CLIPS_PER_SPLIT]:
            try:
                strips.append(_captioned(row, root))
            except BadClipError as error:
                faults.append(f"{row['clip_id']} ({error})")
        if strips:
            sheet = target / f"{split}.png"
            with atomic_file(sheet) as partial:
                _sheet(strips).save(partial, format="PNG")
            written.append(sheet)
    if not written:
        raise UserError(
            f"None of the clips of {dataset.root} can be read under {root}: {', '.join(faults[:3])}. Pictures are "
            "drawn from the clips: put them back."
        )
    return written


def clip_strips(data: Sequence[Mapping[str, Any]], clip_ids: Sequence[str]) -> dict[str, bytes | str]:
    """A row of frames of each clip, as JPEG, or why there is none.

    Args:
        data: location (`uri`) and fingerprint of each data set, as an evaluation has them.
        clip_ids: the clips.
    Returns:
        by clip id. Clips of data sets that `vadv extract` did not make, or that are no longer in their place, are left
        out, and so are ids that two data sets have.
    """
    wanted, found, ambiguous = set(clip_ids), dict[str, bytes | str](), set[str]()
    for source in data:
        try:
            dataset = Dataset.open(source["uri"])
            root = _root_of(dataset)
            if root is None or dataset.manifest.fingerprint != source["fingerprint"]:
                continue
            rows = [row for row in _sources(dataset) if row["clip_id"] in wanted]
        except UserError:
            continue
        is_readable = dataset.manifest.provenance.get("reader") == READER_VERSION
        for row in rows:
            if row["clip_id"] in found:
                ambiguous.add(row["clip_id"])
            found[row["clip_id"]] = _jpeg(row, root) if is_readable else "extracted by another version of vadv"
    return {name: strip for name, strip in found.items() if name not in ambiguous}


def _root_of(dataset: Dataset) -> Location | None:
    """The folder of a data set's clips; None if it was not extracted from any."""
    root = dataset.manifest.provenance.get("root")
    is_extracted = SOURCES_NAME in dataset.manifest.records and (dataset.root / SOURCES_NAME).is_file()
    return location(root) if is_extracted and isinstance(root, str) else None


def _sources(dataset: Dataset) -> list[dict[str, Any]]:
    with local_copy(dataset.root / SOURCES_NAME) as path:
        return read_table(path).to_pylist()


def _jpeg(row: dict[str, Any], root: Location) -> bytes | str:
    try:
        tiles, _ = _tiles(row, root, _STRIP_FRAMES, _STRIP_TILE_WIDTH)
    except BadClipError as error:
        return str(error)
    written = io.BytesIO()
    _side_by_side(tiles).save(written, format="JPEG", quality=70)
    return written.getvalue()


def _captioned(row: dict[str, Any], root: Location) -> Pillow.Image:
    """One clip: a caption and its frames."""
    tiles, count = _tiles(row, root, _FRAMES, _TILE_WIDTH)
    seen = (
        f"a face in {row['faces']} frames of {count}" if row["boxes"] else f"no face: {row['no_face'] or 'not sought'}"
    )
    caption = (
        f"{row['clip_id']}   {row['width']} x {row['height']}   {row['start_s']:.2f} to {row['end_s']:.2f} s   {seen}"
    )
    strip = _side_by_side(tiles, top=_CAPTION_HEIGHT)
    ImageDraw.Draw(strip).text((4, 3), caption, fill=_INK)
    return strip


def _tiles(row: dict[str, Any], root: Location, most: int, width: int) -> tuple[list[Pillow.Image], int]:
    """Sampled frames of a clip with the boxes of its face, and the number of frames that were sampled for the face.

    Raises:
        BadClipError: the clip is missing or cannot be decoded.
    """
    boxes = row["boxes"]
    # Frames at times with a known box: those of the face branch.
    count = len(boxes) if boxes else most
    shown = min(most, count)
    chosen = [int((i + 0.5) / shown * count) for i in range(shown)]
    times = Span(row["start_s"], row["end_s"]).middles(count)
    with open_clip(str(join(root, row["path"]))) as file, Video(file) as video:
        images = [to_image(frame, 2 * width) for _, frame in video.frames([times[i] for i in chosen])]
    height = round(width * row["height"] / row["width"])
    tiles = []
    for index, image in zip(chosen, images, strict=True):
        tile = Pillow.fromarray(image).resize((width, height), Pillow.Resampling.BILINEAR)
        if boxes:
            x0, y0, x1, y1 = (share * side for share, side in zip(boxes[index], 2 * (width, height), strict=True))
            ImageDraw.Draw(tile).rectangle((x0, y0, x1, y1), outline=_BOX_COLOUR, width=2)
        tiles.append(tile)
    return tiles, count


def _side_by_side(tiles: list[Pillow.Image], top: int = 0) -> Pillow.Image:
    strip = Pillow.new("RGB", (sum(tile.width for tile in tiles), tiles[0].height + top), _PAPER)
    for place, tile in enumerate(tiles):
        strip.paste(tile, (place * tile.width, top))
    return strip


def _sheet(strips: list[Pillow.Image]) -> Pillow.Image:
    sheet = Pillow.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), _PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet

"""Draw what an extraction saw: for a few clips, sampled frames with their face boxes."""

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
    sources = dataset.root / SOURCES_NAME
    root = dataset.manifest.provenance.get("root")
    if SOURCES_NAME not in dataset.manifest.records or not sources.is_file() or not isinstance(root, str):
        raise UserError(
            f"{dataset.root} was not made by vadv extract, so there are no pictures to draw. Leave out --pictures."
        )
    if (made_with := dataset.manifest.provenance.get("reader")) != READER_VERSION:
        raise UserError(
            f"{dataset.root} was extracted by version {made_with or 1} of the video reader, and this is version "
            f"{READER_VERSION}: the pictures might not show the encoded frames. Leave out --pictures."
        )
    with local_copy(sources) as path:
        rows = read_table(path).to_pylist()
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
                strips.append(_strip(row, location(root)))
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


def _strip(row: dict[str, Any], root: Location) -> Pillow.Image:
    """One clip: a caption and its frames."""
    boxes = row["boxes"]
    # Frames at times with a known box: those of the face branch.
    count = len(boxes) if boxes else _FRAMES
    shown = min(_FRAMES, count)
    chosen = [int((i + 0.5) / shown * count) for i in range(shown)]
    times = Span(row["start_s"], row["end_s"]).middles(count)
    with open_clip(str(join(root, row["path"]))) as file, Video(file) as video:
        images = [to_image(frame, 2 * _TILE_WIDTH) for _, frame in video.frames([times[i] for i in chosen])]
    height = round(_TILE_WIDTH * row["height"] / row["width"])
    strip = Pillow.new("RGB", (_TILE_WIDTH * len(images), height + _CAPTION_HEIGHT), _PAPER)
    draw = ImageDraw.Draw(strip)
    seen = f"a face in {row['faces']} frames of {count}" if boxes else f"no face: {row['no_face'] or 'not sought'}"
    caption = (
        f"{row['clip_id']}   {row['width']} x {row['height']}   {row['start_s']:.2f} to {row['end_s']:.2f} s   {seen}"
    )
    draw.text((4, 3), caption, fill=_INK)
    for place, (index, image) in enumerate(zip(chosen, images, strict=True)):
        tile = Pillow.fromarray(image).resize((_TILE_WIDTH, height), Pillow.Resampling.BILINEAR)
        strip.paste(tile, (place * _TILE_WIDTH, _CAPTION_HEIGHT))
        if boxes:
            left, top, right, bottom = boxes[index]
            x0, x1 = ((place + x) * _TILE_WIDTH for x in (left, right))
            y0, y1 = (_CAPTION_HEIGHT + y * height for y in (top, bottom))
            draw.rectangle((x0, y0, x1, y1), outline=_BOX_COLOUR, width=2)
    return strip


def _sheet(strips: list[Pillow.Image]) -> Pillow.Image:
    sheet = Pillow.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), _PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet

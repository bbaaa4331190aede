"""The command `data-export`: write a data set in the format of another program."""

import argparse

from vadv_dist.cli.parser import Commands, place
from vadv_dist.errors import UserError
from vadv_dist.runtime.terminal import json_line


def add_data_export_command(commands: Commands) -> None:
    """Add `data-export` and its formats."""
    export = commands.add_parser("data-export", help="write a data set in the format of another program")
    formats = export.add_subparsers(dest="format", required=True, metavar="FORMAT")
    mmsa = formats.add_parser(
        "mmsa",
        help="the pickled features that MMSA trains on",
        description="MMSA's models fuse three modalities: text, audio and vision. Predictions of its models come back "
        "as the `predictions` of a study's variant.",
    )
    mmsa.add_argument("uri", type=place, metavar="URI", help="a data set of sentiment labels")
    mmsa.add_argument("out", type=place, metavar="OUT.pkl", help="file to write")
    mmsa.add_argument(
        "--encoder",
        type=place,
        metavar="NAME",
        help="folder or name of a pretrained encoder: `text` becomes its token embeddings, and `text_bert` its tokens "
        "(default: `text` is a fixed random vector for each word, without `text_bert`)",
    )
    mmsa.add_argument("--vision", metavar="FEATURE", help="the feature for `vision` (default: visual, else face)")
    mmsa.add_argument("--audio", metavar="FEATURE", help="the feature for `audio` (default: audio, else none: zeros)")
    mmsa.add_argument("--max-tokens", type=int, default=50, metavar="N", help="length of the texts, as MMSA's own")
    mmsa.add_argument("--overwrite", action="store_true", help="replace an existing file")
    mmsa.add_argument("--json", action="store_true", help="print one JSON object")
    mmsa.set_defaults(call=_mmsa)


def _mmsa(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from vadv_dist.data.mmsa_export import NO_FEATURE, EmbedTexts, export_mmsa
    from vadv_dist.models.frozen_text import FrozenText
    from vadv_dist.storage import location

    if options.max_tokens < 1:
        raise UserError(f"--max-tokens is {options.max_tokens}, expected at least 1.")
    embed: EmbedTexts | None = None
    if options.encoder is not None:
        embed = FrozenText(options.encoder, options.max_tokens).padded
    found = export_mmsa(
        options.uri,
        location(options.out),
        embed=embed,
        vision=options.vision,
        audio=options.audio,
        max_tokens=options.max_tokens,
        replace=options.overwrite,
    )
    if options.json:
        print(json_line({"file": options.out, **asdict(found)}))
        return 0
    counts = ", ".join(f"{count} {split}" for split, count in found.clips.items())
    shapes = ", ".join(
        f"{name} {shape}{'' if feature == name else f' ({feature})'}" if feature != NO_FEATURE else f"{name} zeros"
        for name, (feature, shape) in found.modalities.items()
    )
    print(f"wrote {options.out}: {counts} clips; {shapes}{', text_bert' if found.has_tokens else ''}")
    return 0

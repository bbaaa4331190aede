"""The command `advise`."""

import argparse

from vadv_dist.cli.parser import Commands, place
from vadv_dist.runtime.terminal import json_line


def add_advise_command(commands: Commands) -> None:
    """Add `advise`."""
    advise = commands.add_parser(
        "advise",
        help="estimate what a teacher that sees the video can add to a student that reads text",
        description="Fits linear probes on frozen features of the train and valid splits, and compares the mutual "
        "information of text and video with that of text and label (arXiv:2510.13182). Says `likely helps`, `unlikely` "
        "or `not enough data`.",
    )
    advise.add_argument("uri", type=place, help="a data set with words; labels are numbers or classes")
    advise.add_argument(
        "--encoder",
        type=place,
        metavar="NAME",
        help="folder or name of a pretrained encoder that represents texts (default: words and pairs of words)",
    )
    advise.add_argument(
        "--features", metavar="LIST", help="features of the teacher, comma-separated (default: visual,face if present)"
    )
    advise.add_argument("--max-clips", type=int, default=4000, metavar="N", help="clips to draw at most")
    advise.add_argument("--seed", type=int, default=1, help="seed of the draw, the folds and the bootstrap")
    advise.add_argument("--json", action="store_true", help="print one JSON object")
    advise.set_defaults(call=_advise)


def _advise(options: argparse.Namespace) -> int:
    from vadv_dist.advice import advise
    from vadv_dist.advice.result import lines

    features = None if options.features is None else [name.strip() for name in options.features.split(",")]
    advice = advise(
        options.uri, encoder=options.encoder, features=features, max_clips=options.max_clips, seed=options.seed
    )
    if options.json:
        print(json_line(advice.to_json()))
    else:
        print("\n".join(lines(advice, options.uri)))
    return 0

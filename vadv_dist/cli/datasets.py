"""The commands that make and look at data sets: `synth`, `ingest`, `extract`, `data-info`, `data-check`."""

import argparse

from vadv_dist.cli.answers import console, print_config, print_json
from vadv_dist.cli.ingest import add_ingest_command
from vadv_dist.cli.parser import Commands
from vadv_dist.config.places import path, place
from vadv_dist.errors import UserError


def add_data_commands(commands: Commands) -> None:
    """Add the commands of data sets."""
    synth = commands.add_parser("synth", help="make a data set whose truth is known")
    synth.add_argument("out", type=place, metavar="OUT", help="folder or s3:// prefix to write")
    synth.add_argument("--num-clips", type=int, default=2000, help="clips over all splits (default: %(default)s)")
    synth.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    synth.add_argument("--uninformative-video", action="store_true", help="video and face say nothing of the label")
    synth.add_argument(
        "--annotator-noise",
        type=float,
        metavar="S",
        help="standard deviation of one annotator, in label units (default: 0.8, with which an annotator reads the "
        "made data as a human reads CMU-MOSI)",
    )
    synth.add_argument(
        "--video-noise",
        type=float,
        metavar="S",
        help="standard deviation of what video and face say of the label, in label units (default: 0.4; 6 is a weak "
        "video, whose sign alone is right on 62 %% of clips)",
    )
    synth.set_defaults(call=_synth)

    add_ingest_command(commands)

    extract = commands.add_parser(
        "extract",
        help="turn raw video clips into a data set, or go on with one",
        description="Every field of the config can be overridden: --section.field=value, as --image.tokens=patches.",
        allow_abbrev=False,
    )
    extract.more_help = _extract_fields
    extract.add_argument("--config", type=path, required=True, help="a YAML file, or a recipe's name (extract-raw)")
    extract.add_argument("--print_config", action="store_true", help="print the resolved config and stop")
    extract.add_argument("--retry-rejected", action="store_true", help="read again the clips that were rejected")
    extract.add_argument("--json", action="store_true", help="print the counts as one JSON object")
    extract.set_defaults(call=_extract, takes_overrides=True)

    info = commands.add_parser("data-info", help="what a data set holds")
    info.add_argument("uri", type=place)
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.add_argument("--pictures", type=path, metavar="DIR", help="draw some clips' frames with their face boxes")
    info.set_defaults(call=_data_info)

    check = commands.add_parser("data-check", help="verify data sets: hashes, schema, ranges, duplicates, leaks")
    check.add_argument("uri", type=place, nargs="+", help="a data set; of several, also what they share")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(call=_data_check)


def _synth(options: argparse.Namespace) -> int:
    from vadv_dist.data.synth import make_dataset

    noise = {"s_annot": options.annotator_noise, "s_video": options.video_noise}
    dataset = make_dataset(
        options.out,
        num_clips=options.num_clips,
        seed=options.seed,
        informative_video=not options.uninformative_video,
        **{name: value for name, value in noise.items() if value is not None},
    )
    counts = ", ".join(f"{dataset.manifest.rows(split)} {split}" for split in dataset.manifest.splits)
    print(f"wrote {options.out}: {counts} clips (`vadv data-info {options.out}` shows them)")
    return 0


def _extract_fields() -> str:
    from vadv_dist.config.reference import KINDS, help_text

    return help_text(KINDS["extract"])


def _extract(options: argparse.Namespace) -> int:
    from vadv_dist.config.extract_sections import ExtractConfig
    from vadv_dist.config.load import load_sections

    config = load_sections(ExtractConfig, options.config, options.overrides)
    if options.print_config:
        print_config(config)
        return 0
    from vadv_dist.features.extract import extract
    from vadv_dist.runtime.job_storage import with_lasting

    config = with_lasting(config, "output.uri")
    summary = extract(config, console(stderr=True), retry_rejected=options.retry_rejected)
    if options.json:
        print_json(summary.to_json())
    else:
        print(summary)
    return 0


def _data_info(options: argparse.Namespace) -> int:
    from vadv_dist.data.info import dataset_info, render_info

    info = dataset_info(options.uri)
    if options.pictures is not None:
        from vadv_dist.features.contact_sheet import write_contact_sheets

        info["pictures"] = [str(path) for path in write_contact_sheets(options.uri, options.pictures)]
    if options.json:
        print_json(info)
    else:
        render_info(info, console())
        for path in info.get("pictures", []):
            print(f"wrote {path}")
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from vadv_dist.data.shared_videos import check_datasets, render_check

    check = check_datasets(options.uri)
    if options.json:
        print_json(check.to_json())
    else:
        render_check(check, console())
    return 0 if check.ok else UserError.exit_code

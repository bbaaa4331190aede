"""The commands that create and inspect data sets: `synth`, `ingest`, `extract`, `data-info`, `data-check`."""

import argparse
import shlex

from vadv_dist.cli.ingest import add_ingest_command
from vadv_dist.cli.overwrite import add_overwrite, foreign_to_dataset, overwriting
from vadv_dist.cli.parser import Commands, path, place
from vadv_dist.cli.training import print_config
from vadv_dist.errors import UserError
from vadv_dist.runtime.terminal import console, json_line


def add_data_commands(commands: Commands) -> None:
    """Add the data set commands."""
    _add_synth(commands)
    add_ingest_command(commands)

    extract = commands.add_parser(
        "extract",
        help="turn raw video clips into a data set, or resume an extraction",
        description="Fields can be overridden with --section.field=VALUE, for example --image.tokens=patches.",
        allow_abbrev=False,
    )
    extract.more_help = _extract_fields
    extract.add_argument("--config", type=path, required=True, help="a YAML file, or a recipe's name (extract-raw)")
    extract.add_argument("--print_config", action="store_true", help="print the resolved config and exit")
    add_overwrite(extract)
    extract.add_argument("--retry-rejected", action="store_true", help="try rejected clips again")
    extract.add_argument("--json", action="store_true", help="print the counts as one JSON object")
    extract.set_defaults(call=_extract)

    info = commands.add_parser("data-info", help="show what a data set contains")
    info.add_argument("uri", type=place)
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.add_argument("--pictures", type=path, metavar="DIR", help="draw frames of some clips with their face boxes")
    page = "write a page: histograms by split and source, lengths, missing features, duplicates, leaks, frames"
    info.add_argument("--html", type=place, metavar="PATH", help=page)
    info.set_defaults(call=_data_info)

    what = "verify data sets: hashes, schema, value ranges, duplicates, leaks between splits"
    check = commands.add_parser("data-check", help=what)
    check.add_argument("uri", type=place, nargs="+", help="a data set; several are also checked for shared videos")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(call=_data_check)


def _add_synth(commands: Commands) -> None:
    synth = commands.add_parser("synth", help="generate a synthetic data set with known ground truth")
    synth.add_argument("out", type=place, metavar="OUT", help="folder or s3:// prefix to write")
    synth.add_argument("--task", choices=("sentiment", "retrieval"), default="sentiment", help="what the data are for")
    synth.add_argument("--num-clips", type=int, default=2000, help="clips over all splits")
    synth.add_argument("--seed", type=int, default=1, help="seed of the data")
    synth.add_argument(
        "--uninformative-video",
        action="store_true",
        help="sentiment: make video and face independent of labels; retrieval: make frames say no more about the class "
        "than their mean, which the student reads",
    )
    sentiment = synth.add_argument_group("--task sentiment (words, video frames, face crops, a number or a class)")
    sentiment.add_argument(
        "--annotator-noise",
        type=float,
        metavar="S",
        help="standard deviation of one annotator's error, in label units (default: 0.8, at which an annotator is as "
        "accurate on the synthetic data as a human on CMU-MOSI)",
    )
    sentiment.add_argument(
        "--video-noise",
        type=float,
        metavar="S",
        help="standard deviation of the noise on the label in video and face, in label units (default: 0.4; at 6 the "
        "video's sign is right for only 62 %% of the clips)",
    )
    sentiment.add_argument(
        "--audio-shape",
        type=int,
        nargs=2,
        metavar=("T", "D"),
        help="add audio features of T steps and width D, with a cue like that of the video (teacher.use_audio)",
    )
    synth.add_argument(
        "--classes",
        type=int,
        metavar="N",
        help="number of classes; sentiment: cut the label range into N (2 to 7) classes (default: labels are numbers); "
        "retrieval: default 10, as in VEGAS",
    )
    retrieval = synth.add_argument_group("--task retrieval (an audio vector, video frames, a class)")
    for flag, kind, metavar, what in (
        ("--label-noise", float, "SHARE", "share of wrong labels in train; valid and test have none (default: 0.4)"),
        ("--audio-noise", float, "S", "variation of audio within a class; classes are 1.4 apart (default: 0.3)"),
        ("--visual-noise", float, "S", "the same for video (default: 0.15)"),
        ("--audio-width", int, "N", "width of the audio vector (default: 128, as in VEGAS)"),
        ("--visual-width", int, "N", "width of a frame (default: 64)"),
        ("--frames", int, "N", "frames per clip (default: 8); with 1, as in VEGAS, the video is uninformative"),
    ):
        retrieval.add_argument(flag, type=kind, metavar=metavar, help=what)
    add_overwrite(synth)
    synth.set_defaults(call=_synth)


# Parameter of the random model by the name of its option, which only its task has.
_BOTH = {"classes": "num_classes"}
_SENTIMENT = {"annotator_noise": "s_annot", "video_noise": "s_video", "audio_shape": "audio_shape"}
_RETRIEVAL = {
    "audio_noise": "s_audio",
    "visual_noise": "s_visual",
    **{name: name for name in ("label_noise", "audio_width", "visual_width", "frames")},
}


def _synth(options: argparse.Namespace) -> int:
    from vadv_dist.data.synth import make_dataset, make_retrieval_dataset

    make, own, foreign, other = {
        "sentiment": (make_dataset, _SENTIMENT, _RETRIEVAL, "retrieval"),
        "retrieval": (make_retrieval_dataset, _RETRIEVAL, _SENTIMENT, "sentiment"),
    }[options.task]
    for name in foreign:
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} belongs to --task {other}, but the task is {options.task}. Leave it out.")
    given = {to: getattr(options, name) for name, to in {**_BOTH, **own}.items() if getattr(options, name) is not None}
    dataset = overwriting(
        options,
        options.out,
        foreign_to_dataset,
        lambda: make(
            options.out,
            num_clips=options.num_clips,
            seed=options.seed,
            informative_video=not options.uninformative_video,
            **given,
        ),
    )
    counts = ", ".join(f"{dataset.manifest.rows(split)} {split}" for split in dataset.manifest.splits)
    print(f"wrote {options.out}: {counts} clips (`vadv data-info {shlex.quote(options.out)}` shows them)")
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
    summary = overwriting(
        options,
        config.output.uri,
        foreign_to_dataset,
        lambda: extract(config, console(stderr=True), retry_rejected=options.retry_rejected),
    )
    if options.json:
        print(json_line(summary.to_json()))
    else:
        print(summary)
    return 0


def _data_info(options: argparse.Namespace) -> int:
    from vadv_dist.data.info import dataset_info

    info = dataset_info(options.uri)
    if options.pictures is not None:
        from vadv_dist.features.contact_sheet import write_contact_sheets

        info["pictures"] = [str(path) for path in write_contact_sheets(options.uri, options.pictures)]
    if options.html is not None:
        from vadv_dist.storage import location
        from vadv_dist.workflow.data_page import data_page

        data_page(options.uri).write_html(location(options.html))
        info["html"] = options.html
    if options.json:
        print(json_line(info))
    else:
        from vadv_dist.data.info_view import render_info

        render_info(info, console())
        for path in [*info.get("pictures", []), *([info["html"]] if "html" in info else [])]:
            print(f"wrote {path}")
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from vadv_dist.data.shared_videos import check_datasets, render_check

    check = check_datasets(options.uri)
    if options.json:
        print(json_line(check.to_json()))
    else:
        render_check(check, console())
    return 0 if check.ok else UserError.exit_code

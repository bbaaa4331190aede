"""`vadv export`: the student as a model folder for other programs."""

import argparse
import shlex

from vadv_dist.cli.overwrite import add_overwrite, foreign_to_export, overwriting
from vadv_dist.cli.parser import Commands, place
from vadv_dist.errors import UserError


def add_export_command(commands: Commands) -> None:
    """Add `export`."""
    parser = commands.add_parser(
        "export",
        help="write the student as a model folder for other programs",
        description="Writes the student alone: as a folder of PyTorch weights with what loads them (a text student: "
        "transformers), or as ONNX. The model card holds the run's evaluations.",
    )
    parser.add_argument("run", type=place, metavar="RUN_OR_EXPORT")
    parser.add_argument(
        "--out", type=place, help="folder or s3:// prefix to write; only an export needs none, to --push"
    )
    parser.add_argument(
        "--format",
        choices=("pytorch", "onnx", "sentence-transformers"),
        help="a folder for torch (default), for onnxruntime, or in the layout of sentence-transformers, which needs no "
        "code for mean pooling, either",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "int8"),
        default="fp32",
        help="int8 makes ONNX weights a quarter as large; what that costs is measured, printed, and stated in the card",
    )
    parser.add_argument(
        "--texts",
        type=place,
        metavar="FILE",
        help="a .csv or .parquet file with texts on which to measure int8 (default: those that the run was evaluated "
        "on, or else a few sentences of vadv)",
    )
    parser.add_argument("--text-column", default="text", help="its column of the texts")
    parser.add_argument("--license", metavar="ID", help="license of the weights for the card, such as mit")
    parser.add_argument(
        "--language", action="append", default=[], metavar="CODE", help="language of the texts, such as en; repeatable"
    )
    parser.add_argument("--base-model", metavar="REPO", help="the encoder's name on the Hugging Face Hub")
    parser.add_argument(
        "--push",
        metavar="REPO",
        help="upload the export to this repository of the Hugging Face Hub, with the token of `hf auth login` or "
        "HF_TOKEN; without --out, RUN_OR_EXPORT must be an export, which is uploaded as it is",
    )
    parser.add_argument("--public", action="store_true", help="let everybody see what --push uploads")
    add_overwrite(parser)
    parser.set_defaults(call=_export)


def _export(options: argparse.Namespace) -> int:
    stated = options.license or options.language or options.base_model
    if options.public and not options.push:
        raise UserError("--public is for --push REPO.")
    if options.texts is not None and options.precision != "int8":
        raise UserError("--texts is for --precision int8.")
    if options.out is not None:
        from vadv_dist.inference.card_metadata import Publication
        from vadv_dist.inference.export import export_run
        from vadv_dist.inference.int8_cost import texts_of_file

        publication = Publication(options.license, tuple(options.language), options.base_model) if stated else None
        summary = overwriting(
            options,
            options.out,
            foreign_to_export,
            lambda: export_run(
                options.run,
                options.out,
                format=options.format or "pytorch",
                int8=options.precision == "int8",
                texts=None if options.texts is None else texts_of_file(options.texts, options.text_column),
                publication=publication,
            ),
        )
        print(f"wrote {summary}")
    elif not options.push:
        raise UserError("Give --out FOLDER to write an export, or --push REPO to upload one.")
    elif stated or options.format or options.precision != "fp32":
        raise UserError("An export is pushed as it is. Give --out FOLDER, too, to write another one and push that.")
    if options.push:
        from vadv_dist.inference.publish import push_export

        visible = "public" if options.public else "private"
        url = push_export(options.out or options.run, options.push, public=options.public)
        print(f"pushed to {url} ({visible})")
    if options.out is not None:
        _name_uses(options.out)
    return 0


def _name_uses(export: str) -> None:
    """Print the commands that use an export, if it is one for this program."""
    from vadv_dist.inference.manifest import RETRIEVAL, SENTENCE_TRANSFORMERS, format_of, read_manifest, task_of
    from vadv_dist.storage import location

    manifest, folder = read_manifest(location(export)), shlex.quote(export)
    if format_of(manifest) != SENTENCE_TRANSFORMERS:
        predict = "" if task_of(manifest) == RETRIEVAL else f'vadv predict {folder} --text "what a wonderful film"; '
        print(f"next: {predict}vadv serve {folder}")

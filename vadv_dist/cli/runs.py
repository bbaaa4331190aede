"""The commands that use a run: `evaluate`, `retrieve`, `export`, `watch`, `report`."""

import argparse
import shlex
import sys
from functools import partial

from vadv_dist.cli.overwrite import add_overwrite, foreign_to_export, foreign_to_retrieved, overwriting
from vadv_dist.cli.parser import Commands, place
from vadv_dist.cli.predict import add_predict_command, warn_of_cut_texts
from vadv_dist.errors import UserError
from vadv_dist.runtime.terminal import console, counted, json_line

KNOWN_SPEAKERS = "Its scores may profit from known speakers."


def add_run_commands(commands: Commands) -> None:
    """Add the commands that use a run."""
    evaluate = commands.add_parser(
        "evaluate",
        help="score a run's best student and its teacher on a split",
        description="Scores a run on the data it was trained on, identified by fingerprint, and writes the result into "
        "the run's folder. With --data, scores the student of a run or an export on another data set: the result goes "
        "to other-data/ in the run's folder; for an export it is only printed.",
    )
    evaluate.add_argument("run", type=place, metavar="RUN_OR_EXPORT")
    evaluate.add_argument("--split", default="test", help="split to score")
    evaluate.add_argument(
        "--data",
        type=place,
        action="append",
        default=[],
        metavar="URI",
        help="another data set to score the student on, or the new location of the run's own; repeat it for a run with "
        "several data sets",
    )
    evaluate.add_argument("--encoder", type=place, help="new location of the run's encoder, if it was moved")
    evaluate.add_argument(
        "--out",
        type=place,
        help="folder or s3:// prefix to write to (default: the run's folder; nothing for an export)",
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(call=_evaluate)

    add_predict_command(commands)

    retrieve = commands.add_parser(
        "retrieve",
        help="find the nearest clips of the other modality with the student of retrieval",
        description="Embeds the vectors of both files and finds, for each query, the clips of the gallery with the "
        "highest cosine; the search is exact. A file has a column of ids (clip_id or id) and the vectors of the clips: "
        "in Parquet a column of lists or tensors named audio or visual (as in the shards of a data set), in npz an "
        "array [rows, width] of that name, in CSV one column per value (audio_0, audio_1, …). The gallery may be "
        "larger than memory.",
    )
    retrieve.add_argument("run", type=place, metavar="RUN_OR_EXPORT")
    retrieve.add_argument("--query", type=place, required=True, metavar="FILE", help="queries: .csv, .parquet or .npz")
    retrieve.add_argument("--gallery", type=place, required=True, metavar="FILE", help="clips to search, likewise")
    retrieve.add_argument("--k", type=int, default=10, help="number of clips to find for each query")
    retrieve.add_argument(
        "--from",
        dest="modality",
        choices=("audio", "visual"),
        help="modality of the queries; the gallery has the other one (default: the only one that the files allow)",
    )
    retrieve.add_argument("--id-column", help="column of the ids in both files (default: clip_id or id)")
    retrieve.add_argument(
        "--out", type=place, help="a .csv, .parquet or .npz file to write, instead of printing the results"
    )
    add_overwrite(retrieve)
    retrieve.add_argument("--json", action="store_true", help="print one JSON object")
    retrieve.set_defaults(call=_retrieve)

    export = commands.add_parser(
        "export",
        help="write the student as a model folder for other programs",
        description="Writes the student alone: as a folder of PyTorch weights with what loads them (a text student: "
        "transformers), or as ONNX. The model card holds the run's evaluations.",
    )
    export.add_argument("run", type=place, metavar="RUN_OR_EXPORT")
    export.add_argument(
        "--out", type=place, help="folder or s3:// prefix to write; only an export needs none, to --push"
    )
    export.add_argument(
        "--format",
        choices=("pytorch", "onnx", "sentence-transformers"),
        help="a folder for torch (default), for onnxruntime, or in the layout of sentence-transformers, which needs no "
        "code for mean pooling, either",
    )
    export.add_argument(
        "--precision",
        choices=("fp32", "int8"),
        default="fp32",
        help="int8 makes ONNX weights a quarter as large; what that costs is measured, printed, and stated in the card",
    )
    export.add_argument(
        "--texts",
        type=place,
        metavar="FILE",
        help="a .csv or .parquet file with texts on which to measure int8 (default: those that the run was evaluated "
        "on, or else a few sentences of vadv)",
    )
    export.add_argument("--text-column", default="text", help="its column of the texts")
    export.add_argument("--license", metavar="ID", help="license of the weights for the card, such as mit")
    export.add_argument(
        "--language", action="append", default=[], metavar="CODE", help="language of the texts, such as en; repeatable"
    )
    export.add_argument("--base-model", metavar="REPO", help="the encoder's name on the Hugging Face Hub")
    export.add_argument(
        "--push",
        metavar="REPO",
        help="upload the export to this repository of the Hugging Face Hub, with the token of `hf auth login` or "
        "HF_TOKEN; without --out, RUN_OR_EXPORT must be an export, which is uploaded as it is",
    )
    export.add_argument("--public", action="store_true", help="let everybody see what --push uploads")
    add_overwrite(export)
    export.set_defaults(call=_export)

    watch = commands.add_parser("watch", help="follow a run, a search or a study: what is done, scores, time left")
    watch.add_argument(
        "run",
        type=place,
        help="folder or s3:// prefix of the run, the search or the study; of a folder with several, such as that of a "
        "workflow, the run that wrote last; with --address, a job's id",
    )
    watch.add_argument("--address", help="job server, http://HOST:8265: follow the output of a job")
    watch.add_argument("--once", action="store_true", help="print the current state and exit")
    watch.add_argument("--json", action="store_true", help="print the current state as one JSON object and exit")
    watch.set_defaults(call=_watch)

    report = commands.add_parser(
        "report",
        help="write the report of a run, a search or a study",
        description="Writes report.html of a run. Of a search or a study, finished or not, writes tune-report.html, or "
        "study.html, .md, .tex and .json, from the trainings that have ended.",
    )
    report.add_argument("run", type=place, help="folder or s3:// prefix of the run, the search or the study")
    report.add_argument("--compare", type=place, action="append", default=[], help="a run to compare with; repeatable")
    report.set_defaults(call=_report)


def _evaluate(options: argparse.Namespace) -> int:
    from vadv_dist.reporting.terminal import evaluation_tables
    from vadv_dist.training.evaluate_other_data import evaluate

    evaluation = evaluate(options.run, options.split, data=options.data, encoder=options.encoder, out=options.out)
    for warning in evaluation.leaks:
        print(f"vadv: warning: {warning['told']} {warning.get('why', KNOWN_SPEAKERS)}", file=sys.stderr)
    if evaluation.texts_cut.get("cut"):
        from vadv_dist.inference.token_counts import TokenCounts

        warn_of_cut_texts(TokenCounts.from_json(evaluation.texts_cut))
    if options.json:
        print(json_line(evaluation.to_json()))
        return 0
    terminal = console()
    for part in evaluation_tables(evaluation):
        terminal.print(part)
    if evaluation.other_data:
        file = evaluation.file
        print(f"wrote {file}" if file else "nothing was written, because an export has no run folder")
    return 0


def _retrieve(options: argparse.Namespace) -> int:
    from vadv_dist.inference.retrieve import Retrieved, require_output, retrieve, write_retrieved

    def call() -> Retrieved:
        out = None if options.out is None else require_output(options.out)
        found = retrieve(
            options.run,
            options.query,
            options.gallery,
            k=options.k,
            modality=options.modality,
            id_column=options.id_column,
        )
        if out is not None:
            write_retrieved(found, out)
        return found

    out = options.out
    found = call() if out is None else overwriting(options, out, foreign_to_retrieved, call)
    if options.json:
        print(json_line({"from": found.query_modality, "rows": list(found.rows())}))
    elif out is not None:
        kind = found.query_modality
        queries = counted(len(found.query_id), f"{kind} query", f"{kind} queries")
        print(f"wrote {out}: the nearest {options.k} of {counted(found.num_items, 'clip')} for {queries}")
    else:
        for row in found.rows():
            print(f"{row['query_id']}\t{row['rank']}\t{row['gallery_id']}\t{row['cosine']:.4f}")
    return 0


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


def _watch(options: argparse.Namespace) -> int:
    from vadv_dist.storage import location
    from vadv_dist.studies.progress import study_lines, study_state
    from vadv_dist.studies.record import is_study
    from vadv_dist.tuning import progress
    from vadv_dist.tuning.study_folder import is_search
    from vadv_dist.watching.runs import newest_run
    from vadv_dist.watching.watch import state_of, watch

    if options.address is not None:
        from vadv_dist.submission.jobs import follow_job

        if options.once or options.json:
            raise UserError("--address follows a job, so --once and --json do not apply; `vadv jobs list` shows jobs.")
        return follow_job(options.address, options.run)
    root = location(options.run)
    if is_study(root):
        state, lines = study_state(root), study_lines
    elif is_search(root):
        state, lines = partial(progress.state_of, root), progress.lines_of
    else:
        run = newest_run(options.run)
        if options.json:
            print(json_line(state_of(run)))
        else:
            if run != options.run:
                print(f"the run that wrote last is {run}")
            watch(run, console(), once=options.once)
        return 0
    if options.json:
        print(json_line(state()))
    else:
        progress.follow(state, console(), lines_of=lines, once=options.once)
    return 0


def _report(options: argparse.Namespace) -> int:
    from vadv_dist.features.contact_sheet import clip_strips
    from vadv_dist.inference.manifest import MANIFEST
    from vadv_dist.reporting.report import write_report
    from vadv_dist.storage import location
    from vadv_dist.studies.record import is_study
    from vadv_dist.tuning.study_folder import is_search

    root = location(options.run)
    is_run = not is_study(root) and not is_search(root)
    if options.compare and not is_run:
        raise UserError("--compare needs runs, but RUN is a search or a study. Leave it out.")
    if is_run:
        print(write_report(options.run, compare=options.compare, strips=clip_strips))
        if (root / "student" / MANIFEST).is_file():  # on standard error, because the path is for programs, too
            run, out = shlex.quote(options.run), shlex.quote(f"{root.name}-student")
            print(f"next: vadv export {run} --out {out}", file=sys.stderr)
    elif is_search(root):
        from vadv_dist.tuning.result_files import report_search

        print(report_search(root))
    else:
        from vadv_dist.studies.study import report_study

        report_study(root, console(stderr=True))
        print(root / "study.html")
    return 0

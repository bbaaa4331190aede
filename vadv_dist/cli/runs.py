"""The commands that use a run: `evaluate`, `predict`, `retrieve`, `export`, `watch`, `report`."""

import argparse
import shlex
import sys
from functools import partial

from vadv_dist.cli.export import add_export_command
from vadv_dist.cli.parser import Commands, place
from vadv_dist.cli.predict import add_predict_command, warn_of_cut_texts
from vadv_dist.cli.retrieve import add_retrieve_command
from vadv_dist.errors import UserError
from vadv_dist.runtime.terminal import console, json_line

KNOWN_SPEAKERS = "Its scores may profit from known speakers."


def add_run_commands(commands: Commands) -> None:
    """Add the commands that use a run."""
    _add_evaluate(commands)
    add_predict_command(commands)
    add_retrieve_command(commands)
    add_export_command(commands)
    _add_watch(commands)
    _add_report(commands)


def _add_evaluate(commands: Commands) -> None:
    """Add `evaluate`."""
    parser = commands.add_parser(
        "evaluate",
        help="score a run's best student and its teacher on a split",
        description="Scores a run on the data it was trained on, identified by fingerprint, and writes the result into "
        "the run's folder. With --data, scores the student of a run or an export on another data set: the result goes "
        "to other-data/ in the run's folder; for an export it is only printed.",
    )
    parser.add_argument("run", type=place, metavar="RUN_OR_EXPORT")
    parser.add_argument("--split", default="test", help="split to score")
    parser.add_argument(
        "--data",
        type=place,
        action="append",
        default=[],
        metavar="URI",
        help="another data set to score the student on, or the new location of the run's own; repeat it for a run with "
        "several data sets",
    )
    parser.add_argument("--encoder", type=place, help="new location of the run's encoder, if it was moved")
    parser.add_argument(
        "--out",
        type=place,
        help="folder or s3:// prefix to write to (default: the run's folder; nothing for an export)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(call=_evaluate)


def _add_watch(commands: Commands) -> None:
    """Add `watch`."""
    parser = commands.add_parser("watch", help="follow a run, a search or a study: what is done, scores, time left")
    parser.add_argument(
        "run",
        type=place,
        help="folder or s3:// prefix of the run, the search or the study; of a folder with several, such as that of a "
        "workflow, the run that wrote last; with --address, a job's id",
    )
    parser.add_argument("--address", help="job server, http://HOST:8265: follow the output of a job")
    parser.add_argument("--once", action="store_true", help="print the current state and exit")
    parser.add_argument("--json", action="store_true", help="print the current state as one JSON object and exit")
    parser.set_defaults(call=_watch)


def _add_report(commands: Commands) -> None:
    """Add `report`."""
    parser = commands.add_parser(
        "report",
        help="write the report of a run, a search or a study",
        description="Writes report.html of a run. Of a search or a study, finished or not, writes tune-report.html, or "
        "study.html, .md, .tex and .json, from the trainings that have ended.",
    )
    parser.add_argument("run", type=place, help="folder or s3:// prefix of the run, the search or the study")
    parser.add_argument("--compare", type=place, action="append", default=[], help="a run to compare with; repeatable")
    parser.set_defaults(call=_report)


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

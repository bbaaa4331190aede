"""The command line, `vadv`: one library call per subcommand.

Heavy imports stand inside the calls, so that `--help` answers at once. Answers go to standard output, progress and
messages to standard error. Exit codes: 0 done, 1 a fault of the machine, 2 a mistake in what was given, 130 stopped.
"""

import argparse
import errno
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vadv_dist import __version__
from vadv_dist.cli_ingest import add_ingest_command
from vadv_dist.errors import MachineError, UserError, VadvError, did_you_mean

# What is wrong with a path that was given: no permission, nothing there, a file for a folder, a name too long.
_PLACES = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, with the nearest name where a command is unknown."""

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse declares NoReturn; raising is that
        command = self.prog.removeprefix("vadv").strip()
        where = f"{command}: " if command else ""
        raise UserError(f"{where}{message}. `{self.prog} --help` shows what it takes.")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(c) for c in action.choices]
            raise UserError(
                f"{self.prog}: unknown {action.dest} {value!r} (there are: {', '.join(names)})."
                f"{did_you_mean(str(value), names)}"
            )


class _Help(argparse.HelpFormatter):
    """Counts the indent of subcommands, which argparse forgets, so that their help stands beside them."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        parser = build_parser()
        options, rest = parser.parse_known_args(arguments)
        if rest and not getattr(options, "takes_overrides", False):
            raise UserError(f"vadv {options.command}: unknown argument {rest[0]!r}. `vadv {options.command} --help`.")
        options.overrides = rest
        code: int = options.call(options)
        sys.stdout.flush()
        return code
    except VadvError as error:
        print(f"vadv: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("vadv: stopped. What was complete is safe; the same command goes on with a run.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            print(f"vadv: {error}. Nothing half-written was left; free some space and try again.", file=sys.stderr)
            return MachineError.exit_code
        if error.errno in _PLACES:
            print(f"vadv: {error}. Give a place that may be read and written.", file=sys.stderr)
            return UserError.exit_code
        raise
    except MemoryError:
        print("vadv: out of memory. Lower data.window_bytes or data.batch_size.", file=sys.stderr)
        return MachineError.exit_code


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = _Parser(
        prog="vadv",
        description="Distil a video teacher into a student that reads only the words.",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action="version", version=f"vadv {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_data_commands(commands)
    _add_train_command(commands)
    _add_run_commands(commands)
    _add_cluster_commands(commands)
    _add_tune_command(commands)
    return parser


def _add_data_commands(commands: Any) -> None:
    synth = commands.add_parser("synth", help="make a data set whose truth is known")
    synth.add_argument("out", metavar="OUT", help="folder or s3:// prefix to write")
    synth.add_argument("--num-clips", type=int, default=2000, help="clips over all splits (default: %(default)s)")
    synth.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    synth.add_argument("--uninformative-video", action="store_true", help="video and face say nothing of the label")
    synth.set_defaults(call=_synth)

    add_ingest_command(commands)

    extract = commands.add_parser(
        "extract",
        help="turn raw video clips into a data set, or go on with one",
        description="Every field of the config can be overridden: --section.field=value, as --image.tokens=patches.",
        allow_abbrev=False,
    )
    extract.add_argument("--config", type=Path, required=True, help="a YAML file, such as the recipe extract-raw")
    extract.add_argument("--print_config", action="store_true", help="print the resolved config and stop")
    extract.add_argument("--retry-rejected", action="store_true", help="read again the clips that were rejected")
    extract.add_argument("--json", action="store_true", help="print the counts as one JSON object")
    extract.set_defaults(call=_extract, takes_overrides=True)

    info = commands.add_parser("data-info", help="what a data set holds")
    info.add_argument("uri")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    info.add_argument("--pictures", type=Path, metavar="DIR", help="draw some clips' frames with their face boxes")
    info.set_defaults(call=_data_info)

    check = commands.add_parser("data-check", help="verify data sets: hashes, schema, ranges, duplicates, leaks")
    check.add_argument("uri", nargs="+", help="a data set; of several, also what they share")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.set_defaults(call=_data_check)


def _add_train_command(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a student beside its teacher, or go on with a run",
        description="Every field of the config can be overridden: --section.field=value, such as --trainer.epochs=3.",
        allow_abbrev=False,
    )
    train.add_argument("--config", type=Path, required=True, help="a YAML file; `vadv recipes` lists the shipped ones")
    train.add_argument("--print_config", action="store_true", help="print the resolved config and stop")
    train.add_argument(
        "--dry-run", action="store_true", help="print parameters, batches, windows, memory; start nothing"
    )
    train.add_argument("--smoke", action="store_true", help="two batches through train, validation, checkpoint, reload")
    train.add_argument("--json", action="store_true", help="print the result as one JSON object")
    train.set_defaults(call=_train, takes_overrides=True)

    recipes = commands.add_parser("recipes", help="the shipped configs: list them, or copy one")
    actions = recipes.add_subparsers(dest="action", metavar="ACTION", parser_class=_Parser)
    copy = actions.add_parser("copy", help="copy a recipe to a file of your own")
    copy.add_argument("name")
    copy.add_argument("file", type=Path)
    recipes.set_defaults(call=_recipes)


def _add_cluster_commands(commands: Any) -> None:
    submit = commands.add_parser(
        "submit",
        help="run train, tune, extract or evaluate on a Ray cluster",
        description="Packs what git tracks, submits, follows. What is typed after the command is the command's own. "
        "Exit codes: 0 done, 1 a fault of the machine, 2 a mistake in what was given, 75 the job lost its node (submit "
        "again), 130 stopped.",
        allow_abbrev=False,
    )
    submit.add_argument("job", choices=("train", "tune", "extract", "evaluate"), metavar="train|tune|extract|evaluate")
    submit.add_argument("--address", help="of the job server, http://HOST:8265 (default: RAY_ADDRESS, this machine)")
    submit.add_argument("--working-dir", type=Path, default=Path("."), help="default: where this is typed")
    submit.add_argument(
        "--install", action="store_true", help="install the package and its exact versions on the nodes"
    )
    submit.add_argument("--detach", action="store_true", help="do not follow the job")
    submit.set_defaults(call=_submit, takes_overrides=True)

    doctor = commands.add_parser(
        "doctor",
        help="what will go wrong before it does",
        description="Checks this machine, and what a config needs. Exit code 1 where there is a fault.",
        allow_abbrev=False,
    )
    doctor.add_argument("--config", type=Path, help="check what this run needs, too")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(call=_doctor, takes_overrides=True)


def _add_tune_command(commands: Any) -> None:
    tune = commands.add_parser(
        "tune",
        help="search a run's loss weights or other fields, or go on with a search",
        description="Fields of the config can be overridden as --section.field=value, those of the space's search part "
        "as --search.field=value, such as --search.sampler=random.",
        allow_abbrev=False,
    )
    tune.add_argument("--config", type=Path, required=True, help="the run that is varied")
    tune.add_argument(
        "--space", type=Path, required=True, help="what is varied: a file, or the name of one in tune_spaces/"
    )
    tune.add_argument("--num-trials", type=int, help="trials of the whole search (default: the space's)")
    tune.add_argument("--seed", type=int, help="decides what is suggested (default: the space's)")
    tune.add_argument("--no-ray", action="store_true", help="one trial after another in this process")
    tune.add_argument("--json", action="store_true", help="print the answer as one JSON object")
    tune.set_defaults(call=_tune, takes_overrides=True)


def _add_run_commands(commands: Any) -> None:
    evaluate = commands.add_parser("evaluate", help="score a run's best student, and its teacher's logits, on a split")
    evaluate.add_argument("run")
    evaluate.add_argument("--split", default="test", help="default: %(default)s")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(call=_evaluate)

    predict = commands.add_parser("predict", help="read new text with the student alone")
    predict.add_argument("run", metavar="RUN_OR_EXPORT")
    predict.add_argument("--text", action="append", default=[], help="a text; may be repeated")
    predict.add_argument("--input", type=Path, help="a .csv or .parquet with a text column")
    predict.add_argument("--output", type=Path, help="a .csv or .parquet to write: the input and its predictions")
    predict.add_argument("--text-column", default="text", help="default: %(default)s")
    predict.add_argument("--json", action="store_true", help="print one JSON object")
    predict.set_defaults(call=_predict)

    export = commands.add_parser("export", help="write the student as a plain Hugging Face folder")
    export.add_argument("run")
    export.add_argument("--out", required=True, help="folder or s3:// prefix to write")
    export.set_defaults(call=_export)

    watch = commands.add_parser("watch", help="follow a run: loss terms, rates, validation, time left")
    watch.add_argument("run", help="folder or s3:// prefix of the run")
    watch.add_argument("--once", action="store_true", help="print how it stands and return")
    watch.add_argument("--json", action="store_true", help="print how it stands as one JSON object, once")
    watch.set_defaults(call=_watch)

    report = commands.add_parser("report", help="write report.html")
    report.add_argument("run")
    report.add_argument("--compare", action="append", default=[], help="a run to set beside it; may be repeated")
    report.set_defaults(call=_report)


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _synth(options: argparse.Namespace) -> int:
    from vadv_dist.data.synth import make_dataset

    dataset = make_dataset(
        options.out,
        num_clips=options.num_clips,
        seed=options.seed,
        informative_video=not options.uninformative_video,
    )
    counts = ", ".join(f"{dataset.manifest.rows(split)} {split}" for split in dataset.manifest.splits)
    print(f"wrote {options.out}: {counts} clips (`vadv data-info {options.out}` shows them)")
    return 0


def _extract(options: argparse.Namespace) -> int:
    from vadv_dist.config import config_to_yaml
    from vadv_dist.config.extract_sections import ExtractConfig
    from vadv_dist.config.load import load_sections

    config = load_sections(ExtractConfig, options.config, options.overrides)
    if options.print_config:
        print(config_to_yaml(config), end="")
        return 0
    from vadv_dist.features.extract import extract

    summary = extract(config, _console(stderr=True), retry_rejected=options.retry_rejected)
    if options.json:
        _print_json(summary.to_json())
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
        _print_json(info)
    else:
        render_info(info, _console())
        for path in info.get("pictures", []):
            print(f"wrote {path}")
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from vadv_dist.data.across import check_datasets, render_check

    check = check_datasets(options.uri)
    if options.json:
        _print_json(check.to_json())
    else:
        render_check(check, _console())
    return 0 if check.ok else UserError.exit_code


def _train(options: argparse.Namespace) -> int:
    from vadv_dist.config import config_to_yaml, load_config

    config = load_config(options.config, options.overrides)
    if options.print_config:
        print(config_to_yaml(config), end="")
        return 0
    if options.dry_run:
        from vadv_dist.training.dry_run import describe, render

        facts = describe(config)
        if options.json:
            _print_json(facts)
        else:
            render(facts, _console())
        return 0
    if options.smoke:
        from vadv_dist.training.smoke import smoke

        for line in smoke(config):
            print(line)
        return 0
    from vadv_dist.storage import location
    from vadv_dist.training.launch import train

    result = train(config, _console(stderr=True))
    if options.json:
        _print_json(result)
    else:
        folder = location(config.run.storage) / config.run.name
        best = f"best validation MAE {result['validation']['mae']:.3f} at step {result['best_step']}"
        print(f"{best} ({result['stopped']}); student in {folder}/student")
        print(f"next: vadv evaluate {folder} --split test; vadv report {folder}")
    return 0


def _tune(options: argparse.Namespace) -> int:
    from vadv_dist.tuning.search import tune

    given = {"num_trials": options.num_trials, "seed": options.seed}
    overrides = [*options.overrides, *(f"--search.{k}={v}" for k, v in given.items() if v is not None)]
    answer = tune(options.config, options.space, overrides, _console(stderr=True), use_ray=not options.no_ray)
    if options.json:
        _print_json(answer)
    else:
        if "front" in answer:
            from vadv_dist.tuning.front import front_table

            _console().print(front_table(answer))
        print(answer["verdict"])
        print(f"report: {answer['folder']}/tune-report.html; next: vadv train --config {answer['folder']}/best.yaml")
    return 0


def _recipes(options: argparse.Namespace) -> int:
    from vadv_dist.recipes import copy_recipe, find_recipe, list_recipes

    if options.action == "copy":
        copy_recipe(options.name, options.file)
        print(f"wrote {options.file}; start it with: vadv {find_recipe(options.name).command} --config {options.file}")
        return 0
    recipes = list_recipes()
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        print(f"{recipe.name:<{width}}  {recipe.command:<7}  {recipe.summary}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from vadv_dist.reporting.terminal import metrics_table
    from vadv_dist.training.evaluate import evaluate_run

    document = evaluate_run(options.run, options.split)
    for warning in document.get("leaks", []):
        print(f"vadv: warning: {warning['told']} Its scores may profit from known speakers.", file=sys.stderr)
    if options.json:
        _print_json(document)
        return 0
    rows: dict[str, Any] = {name: document[name] for name in ("student", "video", "prompt") if name in document}
    console = _console()
    console.print(metrics_table(rows, f"{document['run']}, {options.split} split, {document['rows']} clips"))
    if len(document["sources"]) > 1:
        for source, metrics in document["sources"].items():
            scores = {name: metrics[name] for name in rows if name in metrics}
            console.print(metrics_table(scores, f"{source}, {metrics['rows']} clips"))
    return 0


def _predict(options: argparse.Namespace) -> int:
    from vadv_dist.inference.predict import predict_file, predict_texts, resolve_student

    if bool(options.text) == (options.input is not None):
        raise UserError('Give either --text "…" (as often as you like) or --input FILE --output FILE.')
    if (options.input is None) != (options.output is None):
        raise UserError("--input and --output go together: the output is the input with a column of predictions.")
    folder = resolve_student(options.run)
    if options.input is not None:
        count = predict_file(folder, options.input, options.output, text_column=options.text_column)
        print(f"wrote {options.output}: {count} predictions")
        return 0
    scores = [float(score) for score in predict_texts(folder, options.text)]
    if options.json:
        _print_json([{"text": text, "prediction": score} for text, score in zip(options.text, scores, strict=True)])
    else:
        for text, score in zip(options.text, scores, strict=True):
            print(f"{score:+.3f}  {text}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from vadv_dist.inference.export import export_run

    print(f"wrote {export_run(options.run, options.out)}")
    return 0


def _watch(options: argparse.Namespace) -> int:
    from vadv_dist.training.watch import look, watch

    if options.json:
        _print_json(look(options.run))
    else:
        watch(options.run, _console(), once=options.once)
    return 0


def _report(options: argparse.Namespace) -> int:
    from vadv_dist.reporting.report import write_report

    print(write_report(options.run, compare=options.compare))
    return 0


def _submit(options: argparse.Namespace) -> int:
    from vadv_dist.submission.job import Submission, submit

    submission = Submission(
        options.job,
        tuple(options.overrides),
        address=options.address,
        working_dir=options.working_dir,
        install=options.install,
        detach=options.detach,
    )
    return submit(submission, lambda text: print(f"vadv: {text}", file=sys.stderr, flush=True))


def _doctor(options: argparse.Namespace) -> int:
    from vadv_dist.config import load_config
    from vadv_dist.doctor import examine, render

    config = load_config(options.config, options.overrides) if options.config else None
    findings = examine(config)
    if options.json:
        _print_json([finding.to_json() for finding in findings])
    else:
        render(findings, _console())
    return MachineError.exit_code if any(finding.level == "fault" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())

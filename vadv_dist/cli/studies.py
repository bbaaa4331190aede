"""The commands over several runs: `study`, `compare` and `runs`."""

import argparse
from typing import TYPE_CHECKING, Any

from vadv_dist.cli.parser import Commands, path, place
from vadv_dist.errors import UserError
from vadv_dist.runtime.terminal import console, json_line

if TYPE_CHECKING:
    from vadv_dist.studies.plan import StudyPlan


def add_study_commands(commands: Commands) -> None:
    """Add `study`, `compare` and `runs`."""
    study = commands.add_parser(
        "study",
        help="train variants of a run with several seeds and compare them, or resume a study",
        description="Runs a study file (docs/studies.md): every variant with every seed, as one queue. Runs that are "
        "complete are not trained again. Writes study.json, study.md, study.tex and study.html into the study's folder "
        "in run.storage. Fields of the runs can be overridden with --section.field=VALUE; what a variant sets stays.",
        allow_abbrev=False,
    )
    study.add_argument("file", type=path, help="a study file, or the name of a shipped one (jobs/studies/)")
    study.add_argument(
        "--scale", choices=("full", "small"), default="full", help="small: synthetic data and small models, on a CPU"
    )
    study.add_argument("--seeds", type=seed_list, default=(), metavar="1,2,3", help="seeds instead of the file's")
    study.add_argument("--name", help="name of the study's folder (default: that of the file)")
    study.add_argument("--no-ray", action="store_true", help="train one run after another in this process")
    study.add_argument("--dry-run", action="store_true", help="print the trainings and what is left of them, and exit")
    study.add_argument("--retry-failed", action="store_true", help="train runs again that failed")
    study.add_argument(
        "--best-per-metric-on-test",
        action="store_true",
        help="add a column, labelled as such, with the best checkpoint per metric on the scored split, as some papers "
        "report",
    )
    study.add_argument("--pdf", action="store_true", help="write study.pdf, too")
    study.add_argument("--json", action="store_true", help="print the content of study.json")
    study.set_defaults(call=_study)

    compare = commands.add_parser(
        "compare",
        help="compare runs: configurations, metrics on the same clips, learning curves",
        description="The first run is the one that the others are compared with. Runs must have been evaluated on the "
        "split (vadv evaluate).",
    )
    compare.add_argument("runs", type=place, nargs="+", metavar="RUN")
    compare.add_argument(
        "--split",
        choices=("train", "valid", "test"),
        help="split to compare on (default: test if all runs were evaluated on it, otherwise valid)",
    )
    compare.add_argument("--html", type=path, metavar="FILE", help="write a page, too")
    compare.add_argument("--json", action="store_true", help="print one JSON object")
    compare.set_defaults(call=_compare)

    runs = commands.add_parser("runs", help="list runs with their state, best score, data and age")
    runs.add_argument(
        "storage", type=place, nargs="?", default="runs", help="folder or s3:// prefix of runs, a study or a search"
    )
    runs.add_argument("--json", action="store_true", help="print one JSON list")
    runs.set_defaults(call=_runs)


def seed_list(text: str) -> tuple[int, ...]:
    """Argument type of seeds, such as `1,2,3`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--seeds is {text!r}, expected integers separated by commas, such as 1,2,3.") from None


def run_planned(plan: "StudyPlan", options: argparse.Namespace, *, use_ray: bool, **settings: Any) -> int:
    """Run a study, or say what it would train, and print the outcome."""
    from vadv_dist.studies.study import dry_run, run_study

    if options.dry_run:
        facts = dry_run(plan)
        if options.json:
            print(json_line(facts))
        else:
            print(facts["summary"])
            for run in facts["runs"]:
                print(f"{run['state']:<9} {run['variant']}, seed {run['seed']}")
        return 0
    result = run_study(plan, console(stderr=True), use_ray=use_ray, **settings)
    if options.json:
        print(json_line(result.to_json()))
        return 0
    from vadv_dist.studies.tables import ascii_text, notes, terminal_tables

    terminal = console()
    for table in terminal_tables(result):
        terminal.print(table)
        terminal.print()
    terminal.print(ascii_text("\n".join(notes(result))), style="dim", highlight=False, markup=False)
    for name, why in result.problems:
        terminal.print(f"{name}: {why}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    print(f"report: {result.folder}/study.html")
    return 0


def _study(options: argparse.Namespace) -> int:
    from vadv_dist.studies.plan import plan_study

    plan = plan_study(
        options.file, options.overrides, small=options.scale == "small", seeds=options.seeds, name=options.name
    )
    return run_planned(
        plan,
        options,
        use_ray=not options.no_ray,
        retry_failed=options.retry_failed,
        best_per_metric=options.best_per_metric_on_test,
        with_pdf=options.pdf,
    )


def _compare(options: argparse.Namespace) -> int:
    from vadv_dist.reporting.compare import caveat, compare_many, comparison_page, comparison_tables

    found = compare_many(options.runs, options.split)
    if options.html is not None:
        comparison_page(found).write(options.html)
    if options.json:
        print(json_line(found.to_json()))
        return 0
    terminal = console()
    for table in comparison_tables(found):
        terminal.print(table)
        terminal.print()
    terminal.print(caveat(found), style="dim", highlight=False, markup=False)
    if options.html is not None:
        print(f"wrote {options.html}")
    return 0


def _runs(options: argparse.Namespace) -> int:
    from vadv_dist.watching.runs import list_runs, runs_table

    found = list_runs(options.storage)
    if options.json:
        print(json_line(found))
    else:
        out, table = console(), runs_table(found)
        out.width = max(out.width, out.measure(table, options=out.options.update(max_width=10_000)).maximum)
        out.print(table)
    return 0

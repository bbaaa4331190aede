"""The command `workflow`."""

import argparse

from vadv_dist.cli.parser import Commands, Parser, path
from vadv_dist.runtime.terminal import console, json_line

_STATES = {"complete": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "missing": "dim"}


def add_workflow_command(commands: Commands) -> None:
    """Add `workflow`."""
    workflow = commands.add_parser(
        "workflow",
        help="from clips or a table to an exported student, as stages that are safe to repeat",
        description="Runs a workflow file (docs/workflow.md): data, check, advice, search, trainings, evaluations, "
        "study, export, report. Stages that are complete are not run again, so the same command resumes a workflow "
        "after any failure. Fields of the file can be overridden with --section.field=VALUE.",
        allow_abbrev=False,
    )
    actions = workflow.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    run = actions.add_parser("run", help="run all stages that are not complete", allow_abbrev=False)
    explain = actions.add_parser("explain", help="say which stages would run, and why", allow_abbrev=False)
    status = actions.add_parser("status", help="show how far each stage is", allow_abbrev=False)
    stage = actions.add_parser("stage", help="run one stage, whose inputs must be complete", allow_abbrev=False)
    argo = actions.add_parser("argo", help="print it as resources of Argo Workflows", allow_abbrev=False)
    for action in (run, explain, status, stage):
        action.add_argument("file", type=path, help="a workflow file, or the name of a shipped one (jobs/workflows/)")
        action.add_argument("--json", action="store_true", help="print one JSON object")
    stage.add_argument("name", metavar="STAGE", help="its name, as `status` shows it")
    stage.add_argument("--force", action="store_true", help="run it again although it is complete")
    for action in (run, stage):
        action.add_argument(
            "--address", metavar="URL", help="run heavy stages as jobs on the Ray cluster at http://HOST:8265"
        )
    stage.add_argument("--identity", help=argparse.SUPPRESS)  # of such a job
    for action in (run, explain):
        action.add_argument(
            "--force", action="append", default=[], metavar="STAGE", help="run a complete stage again; repeatable"
        )
    run.add_argument(
        "--max-workers",
        type=int,
        metavar="N",
        help="stages to run at the same time (default: one per core, or one at a time on a machine with a GPU)",
    )
    run.add_argument("--explain", action="store_true", help="only say which stages would run, and why")
    argo.add_argument("file", help="the workflow file in the image")
    argo.add_argument("--image", required=True, help="an image with vadv (infra/docker)")
    argo.add_argument("--resources", metavar="LIST", default="", help="of each task, such as cpu=8,memory=32000,gpu=1")
    argo.add_argument("--schedule", metavar="CRON", help="such as '0 3 * * *' (default: started by hand)")
    argo.add_argument("--timezone", metavar="NAME", help="of the schedule, such as Europe/Zurich")
    run.set_defaults(call=_run)
    explain.set_defaults(call=_explain)
    status.set_defaults(call=_status)
    stage.set_defaults(call=_stage)
    argo.set_defaults(call=_argo)


def _run(options: argparse.Namespace) -> int:
    if options.explain:
        return _explain(options)
    from vadv_dist.storage import read_json
    from vadv_dist.workflow.flow import run_flow
    from vadv_dist.workflow.plan import plan_workflow

    workflow, output = plan_workflow(options.file, options.overrides), console(stderr=True)
    run_flow(
        workflow,
        options.file,
        options.overrides,
        output,
        force=options.force,
        max_workers=options.max_workers,
        address=options.address,
    )
    report, export = (workflow.folder(workflow.stages[name]) for name in ("report", "export"))

    finding = read_json(report / "report.json")["finding"]
    students = [f"{export}/{kind}" for kind in workflow.config.export.formats]
    page, evidence = f"{report}/report.html", str(workflow.root)
    if options.json:
        print(json_line({"finding": finding, "students": students, "report": page, "evidence": evidence}))
        return 0
    print(finding)
    for student in students:
        print(f"student:  {student}")
    print(f"report:   {page}")
    print(f"evidence: {evidence} (a folder per stage)")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from vadv_dist.workflow.explain import explain
    from vadv_dist.workflow.plan import plan_workflow

    found = explain(plan_workflow(options.file, options.overrides), options.force)
    if options.json:
        print(json_line([each.to_json() for each in found]))
        return 0
    width = max(len(each.stage) for each in found)
    for each in found:
        print(f"{'run ' if each.will_run else 'keep'}  {each.stage:<{width}}  {each.why}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from rich.table import Table
    from rich.text import Text

    from vadv_dist.workflow.explain import explain
    from vadv_dist.workflow.plan import plan_workflow

    workflow = plan_workflow(options.file, options.overrides)
    found = explain(workflow)
    if options.json:
        print(json_line([each.to_json() for each in found]))
        return 0
    print(workflow.root)
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "state", "started", "folder"):
        table.add_column(heading, overflow="fold")
    for each in found:
        state = Text(each.state, _STATES[each.state])
        folder = each.folder.rpartition("/")[2] if each.attempts else ""
        table.add_row(each.stage, state, f"{each.attempts}×" if each.attempts else "", folder)
    console().print(table)
    return 0


def _stage(options: argparse.Namespace) -> int:
    from vadv_dist.workflow.plan import plan_workflow
    from vadv_dist.workflow.remote import plan_job, run_remote
    from vadv_dist.workflow.run import run_stage

    out, file, overrides = console(stderr=True), options.file, options.overrides
    if options.identity:
        workflow = plan_job(file, overrides, options.name, options.identity)
    else:
        workflow = plan_workflow(file, overrides)
    if options.address:
        finished = run_remote(workflow, file, overrides, options.name, options.address, out, force=options.force)
    else:
        finished = run_stage(workflow, options.name, out, force=options.force)
    if options.json:
        print(json_line({"folder": str(finished.folder), **finished.manifest}))
    return 0


def _argo(options: argparse.Namespace) -> int:
    from vadv_dist.workflow.argo import argo_resources

    found = argo_resources(
        options.file,
        options.image,
        resources=options.resources,
        schedule=options.schedule,
        timezone=options.timezone,
    )
    print(json_line(found))
    return 0

"""`vadv init`: write a workflow file for a person's own data."""

import argparse
import shlex
import sys
from pathlib import Path

from vadv_dist.cli.parser import Commands, path, place
from vadv_dist.errors import UserError
from vadv_dist.runtime.signals import STOPPED, is_termination
from vadv_dist.runtime.terminal import visible

_FIELDS = (
    "data",
    "columns",
    "label_range",
    "label_map",
    "classes",
    "split_map",
    "split",
    "valid_fraction",
    "transcribe",
    "student",
    "results",
    "seeds",
)


def add_init_command(commands: Commands) -> None:
    """Add `init`."""
    init = commands.add_parser(
        "init",
        help="write a workflow file for your own table, clips or data set",
        description="Looks at your data, asks about its columns, labels and splits, the student, and where results go, "
        "and writes a workflow file. What an option gives is not asked; --yes accepts all proposals.",
        allow_abbrev=False,
    )
    init.add_argument("file", nargs="?", type=path, default=Path("workflow.yaml"), help="the file to write")
    data = "a table of texts or of clips, a folder with label.csv and Raw/, or a data set"
    init.add_argument("--data", type=place, metavar="PATH", help=data)
    columns = "columns of a table: [id=A[+B],]text=C,label=D[,split=E][,video=F][,path=G]"
    init.add_argument("--columns", metavar="FIELDS", help=columns)
    arrays = "features of a table, FILE.npz:ARRAY=visual, face or audio; repeatable"
    init.add_argument("--arrays", type=place, action="append", default=[], metavar="SOURCE", help=arrays)
    init.add_argument("--label-range", nargs=2, metavar=("LOW", "HIGH"), help="lowest and highest possible label")
    init.add_argument("--label-map", metavar="A=1,B=0", help="numbers, or classes, that words in the label column mean")
    init.add_argument("--classes", metavar="A,B", help="names of the classes in order, if labels are classes")
    init.add_argument("--split-map", metavar="A=train", help="what words in the split column mean")
    init.add_argument("--split", metavar="80/10/10", help="deal out whole videos instead of reading a split column")
    fraction = "share of train to move to valid if the split column names no valid (default: 0.1)"
    init.add_argument("--valid-fraction", type=float, metavar="SHARE", help=fraction)
    asr = "speech recognition model for clips without words: a folder or a name on the hub"
    init.add_argument("--transcribe", type=place, metavar="NAME", help=asr)
    students = "roberta-large, roberta-base, minilm, a folder or a name on the hub"
    init.add_argument("--student", type=place, metavar="NAME", help=students)
    init.add_argument("--results", type=place, metavar="URI", help="a folder or s3://BUCKET/PREFIX")
    init.add_argument("--seeds", metavar="LIST", help="such as 1,2,3")
    init.add_argument("--yes", action="store_true", help="accept all proposals")
    init.add_argument("--force", action="store_true", help="replace the file")
    init.set_defaults(call=_init)


def _init(options: argparse.Namespace) -> int:
    from vadv_dist.workflow.explain import explain
    from vadv_dist.workflow.init import write_workflow
    from vadv_dist.workflow.plan import plan_workflow

    def ask(field: str, question: str, proposal: str) -> str:
        option = f"--{field.replace('_', '-')}"
        if options.yes:
            if not proposal:
                raise UserError(f"init: {option} is missing, and there is nothing to propose. {question}.")
            return proposal
        if not sys.stdin.isatty():
            accept = f", or accept {proposal!r} and all other proposals with --yes" if proposal else ""
            raise UserError(
                f"init: {option} is missing, and standard input is not a terminal, so nobody can be asked. Give it"
                f"{accept or f'. {question}'}."
            )
        return _ask(question, proposal)

    given = {field: getattr(options, field) for field in _FIELDS} | {"arrays": options.arrays, "force": options.force}
    if options.label_range:
        given["label_range"] = " ".join(options.label_range)
    try:
        file = write_workflow(options.file, given, ask, lambda text: print(visible(text), file=sys.stderr))
    except KeyboardInterrupt as error:
        if is_termination(error):
            raise
        print("\nvadv: init: stopped by Ctrl-C. Nothing was written.", file=sys.stderr)
        return STOPPED
    try:
        found = explain(plan_workflow(file))
    except UserError as error:
        raise UserError(f"{file} is written, but cannot run yet: {error}") from None
    print(f"{file} is written. Its stages:")
    width = max(len(each.stage) for each in found)
    for each in found:
        print(f"{'run ' if each.will_run else 'keep'}  {each.stage:<{width}}  {each.why}")
    print(f"Next: vadv workflow run {shlex.quote(str(file))}")
    return 0


def _ask(question: str, proposal: str) -> str:
    while True:
        print(f"{question}{f' [{proposal}]' if proposal else ''}: ", end="", file=sys.stderr, flush=True)
        try:
            answer = input().strip()
        except EOFError:
            raise UserError("init: no answer. Nothing was written.") from None
        if answer or proposal:
            return answer or proposal
        print("Nothing is proposed here, so Enter alone is no answer.", file=sys.stderr)

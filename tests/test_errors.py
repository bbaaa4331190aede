"""Errors are classes with facts: nothing is decided by their texts, and they cross processes as what they are."""

import ast
import asyncio
import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from vadv_dist.engines.faults import is_lost_peer, is_out_of_memory
from vadv_dist.errors import (
    DivergedError,
    MachineError,
    MemoryFullError,
    PreemptedError,
    RoomError,
    StoppedError,
    UserError,
    VadvError,
)
from vadv_dist.formats.parquet import OversizedError
from vadv_dist.submission.client import is_without_agent
from vadv_dist.tuning.events import Failed, Lost, failure_of
from vadv_dist.tuning.trial_actor import event_of, values_of

PACKAGE = Path(__file__).parents[1] / "vadv_dist"
FILES = sorted(PACKAGE.rglob("*.py"))
# Functions that decide by an error's text, as its library gives nothing else; tests provoke the libraries' own texts.
BY_TEXT = {
    ("engines/faults.py", "is_out_of_memory"),
    ("engines/faults.py", "is_lost_peer"),
    ("submission/client.py", "is_without_agent"),
}
SEARCHES = {"startswith", "endswith", "find", "index", "count", "search", "match", "fullmatch"}
LOOKS = (ast.In, ast.NotIn, ast.Eq, ast.NotEq)


class TextsOfErrors:
    """Finds where a function compares the text of an exception, or a part of it, or searches in it."""

    def __init__(self, function: ast.AST) -> None:
        self.nodes = list(ast.walk(function))
        self.errors = {n.name for n in self.nodes if isinstance(n, ast.ExceptHandler) and n.name}
        self.errors |= {n.arg for n in self.nodes if isinstance(n, ast.arg) and self._is_error(n)}
        self.texts: set[str] = set()
        for _ in range(3):  # names that are given texts, and names that are given those
            for n in self.nodes:
                if isinstance(n, ast.Assign) and self._is_text(n.value):
                    self.texts |= {target.id for target in n.targets if isinstance(target, ast.Name)}
                if isinstance(n, ast.comprehension | ast.For) and self._is_text(n.iter):
                    self.texts |= {name.id for name in ast.walk(n.target) if isinstance(name, ast.Name)}

    @staticmethod
    def _is_error(argument: ast.arg) -> bool:
        names = [str(getattr(n, "id", getattr(n, "attr", ""))) for n in ast.walk(argument)]
        return any(name.endswith(("Error", "Exception")) for name in names)

    def _is_text(self, node: ast.AST) -> bool:
        for n in ast.walk(node):
            is_str = isinstance(n, ast.Call) and getattr(n.func, "id", "") in ("str", "repr") and n.args
            if is_str and getattr(n.args[0], "id", None) in self.errors:
                return True
            is_field = isinstance(n, ast.Attribute) and n.attr in ("args", "message")
            if is_field and getattr(n.value, "id", None) in self.errors:
                return True
            if isinstance(n, ast.Name) and n.id in self.texts:
                return True
        return False

    def decisions(self) -> Iterator[int]:
        """Lines of the decisions."""
        for n in self.nodes:
            parts: list[ast.expr] = []
            if isinstance(n, ast.Compare) and any(isinstance(operator, LOOKS) for operator in n.ops):
                parts = [n.left, *n.comparators]
            elif isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in SEARCHES:
                parts = [n.func.value, *n.args]
            if any(map(self._is_text, parts)):
                yield n.lineno


def decisions_by_text(source: str) -> dict[str, list[int]]:
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {f.name: lines for f in functions if (lines := list(TextsOfErrors(f).decisions()))}


def test_nothing_is_decided_by_the_text_of_an_error() -> None:
    found = {
        (str(path.relative_to(PACKAGE)), name): lines
        for path in FILES
        for name, lines in decisions_by_text(path.read_text()).items()
    }
    assert set(found) == BY_TEXT, found


@pytest.mark.parametrize(
    "body",
    [
        "if 'memory' in str(error): pass",
        "if any(word in str(error).lower() for word in words): pass",
        "text = str(error)\n        reason = text.lower()\n        if 'node' in reason: pass",
        "if str(error).startswith('x'): pass",
        "if re.search('x', str(error)): pass",
        "if error.args[0] == 'x': pass",
        "line = next(line for line in str(error).splitlines() if 'Error' in line)",
    ],
)
def test_a_decision_by_text_is_found(body: str) -> None:
    assert decisions_by_text(f"def f():\n    try:\n        g()\n    except OSError as error:\n        {body}\n")


@pytest.mark.parametrize("kind", [UserError, DivergedError, MachineError, MemoryFullError, StoppedError])
def test_an_error_keeps_its_class_in_another_process(kind: type[VadvError]) -> None:
    there = pickle.loads(pickle.dumps(kind("what and where")))
    assert type(there) is kind
    assert str(there) == "what and where"
    assert there.exit_code == kind.exit_code


@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_names_the_place_that_a_copy_came_from(duplicate) -> None:
    error = UserError("/tmp/vadv-1/x.csv is odd")
    error.copies["/tmp/vadv-1/x.csv"] = "s3://bucket/x.csv"
    assert str(duplicate(error)) == "s3://bucket/x.csv is odd"


def test_an_error_with_fields_is_pickled_with_them() -> None:
    error = pickle.loads(pickle.dumps(OversizedError("a.parquet", "It is large.")))
    assert type(error) is OversizedError
    assert error.what == "It is large."
    assert str(error).startswith("a.parquet: It is large.")


def test_lines_that_ray_adds_to_an_error_are_not_shown() -> None:
    error = UserError("what was wrong")
    error.args = ("what was wrong\nFailed after 3/3 attempts",)
    assert str(pickle.loads(pickle.dumps(error))) == "what was wrong"


def test_torch_says_when_memory_of_the_machine_ran_out() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("of a GPU"))
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(caught.value)


def _leave_alone(rank: int, port: int, answer: "mp.SimpleQueue[bool]") -> None:
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    dist.barrier()
    if rank == 1:
        mp.current_process().kill()
    try:
        dist.all_reduce(torch.zeros(1 << 20))
    except RuntimeError as error:
        answer.put(is_lost_peer(error))


def test_gloo_says_when_another_rank_is_gone() -> None:
    context = mp.get_context("spawn")
    answer = context.SimpleQueue()
    store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    ranks = [context.Process(target=_leave_alone, args=(rank, store.port, answer)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert answer.get()
    assert not is_lost_peer(RuntimeError("a kernel went wrong"))


def test_a_job_server_says_when_it_has_no_agent_yet() -> None:
    from ray.dashboard.modules.dashboard_sdk import SubmissionClient
    from ray.dashboard.modules.job.job_head import JobHead

    async def no_agent() -> None:
        raise TimeoutError

    async def body() -> dict[str, str]:
        return {"entrypoint": "true"}

    request = SimpleNamespace(json=body)
    response = asyncio.run(JobHead.submit_job(SimpleNamespace(get_target_agent=no_agent), request))
    answer = SimpleNamespace(status_code=response.status, text=response.text)
    with pytest.raises(RuntimeError) as caught:
        SubmissionClient._raise_error(None, answer)
    assert is_without_agent(caught.value)


def test_failures_of_trials_are_classified_by_class() -> None:
    errors = [
        MemoryError(),
        MemoryFullError("CUDA out of memory."),
        OSError(12, "Cannot allocate memory"),
        DivergedError("The loss became nan."),
        UserError("a text in which loss became nan is out of memory"),
        RuntimeError("a kernel went wrong"),
    ]
    kinds = ["out of memory", "out of memory", "out of memory", "NaN or infinity", "refused", "crash"]
    failures = map(failure_of, errors)
    assert [failure.kind for failure in failures if isinstance(failure, Failed)] == kinds


@pytest.mark.parametrize("kind", [RoomError, PreemptedError])
def test_trial_whose_cluster_became_too_small_has_not_failed(kind: type[VadvError]) -> None:
    event = failure_of(kind("room for 1 of 2 workers"))
    assert event == Lost("room for 1 of 2 workers", counts=False)
    assert event_of(values_of(event)) == event
    assert event_of(values_of(Lost("its node is gone"))) == Lost("its node is gone")


def test_a_full_memory_is_not_a_fault_of_what_is_read(tmp_path: Path) -> None:
    """Decoders report both by the same errors: here, that of a file that is not a video."""
    script = """
import resource, sys
from pathlib import Path
from vadv_dist.errors import MemoryFullError
from vadv_dist.features.openface import read_crop
from vadv_dist.features.timeline import BadClipError
def attempt():
    try:
        read_crop(Path(sys.argv[1]))
    except (BadClipError, MemoryFullError) as error:
        print(type(error).__name__)
attempt()
pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
limit = pages * resource.getpagesize() + (1 << 25)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
attempt()
"""
    (tmp_path / "crop.bmp").write_bytes(b"no picture")
    command = [sys.executable, "-c", script, str(tmp_path / "crop.bmp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split() == ["BadClipError", "MemoryFullError"], done.stderr

"""The stages of a workflow as a Metaflow flow: parallel, with retries and a page per stage (docs/workflow.md).

    python jobs/workflow.py run --file demo                                  # `vadv workflow run demo` calls this
    python jobs/workflow.py --datastore s3 argo-workflows create --only-json # `vadv workflow argo` completes this
What runs is decided by what is on the workflow's storage, never by Metaflow's `resume`.
"""

import os
import shlex
import sys
from collections.abc import Callable

from vadv_dist.workflow.flow_process import FILE, call_stage, prepare, say_error, start_flow, stops_tasks, threads_for

prepare(os.environ)  # before Metaflow is imported, which reads its settings then

from metaflow import FlowSpec, Parameter, card, retry, step  # noqa: E402
from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY  # noqa: E402

from vadv_dist.cli import exit_code_of  # noqa: E402
from vadv_dist.errors import UserError  # noqa: E402
from vadv_dist.runtime.signals import sigterm_raises  # noqa: E402
from vadv_dist.runtime.terminal import console, harmless_streams  # noqa: E402


def stage_step(function: Callable[..., None]) -> Callable[..., None]:
    """A step that runs a stage: tried again after a fault of the machine (Metaflow waits in production only)."""
    return card(type="html")(retry(times=2, minutes_between_retries=1)(step(function)))


class VadvWorkflow(FlowSpec):
    """From clips or a table to an exported student, as stages that are safe to repeat."""

    file = Parameter("file", default=os.environ.get(FILE, "demo"), help="a workflow file, or the name of a shipped one")
    overrides = Parameter("overrides", default="", help="--section.field=value ..., quoted as in a shell")
    address = Parameter("address", default="", help="http://HOST:8265 of a Ray cluster that runs heavy stages as jobs")
    force = Parameter("force", default="", help="complete stages to run again, separated by commas")

    def call(self, name: str, work: Callable[[], None]) -> None:
        """Call a part of a step; an error ends the task with one message, and a user's mistake is not retried."""
        with sigterm_raises(), harmless_streams():
            code = exit_code_of(lambda: work() or 0, say=lambda text, code: say_error(name, text, code))
        if code:
            sys.exit(METAFLOW_EXIT_DISALLOW_RETRY if code == UserError.exit_code else code)

    def stage(self, name: str) -> None:
        """Run a stage, if the workflow has it and it is not complete, and show its page."""

        def work() -> None:
            output = console(stderr=True)
            self.html = call_stage(self.file, shlex.split(self.overrides), name, self.started, output, self.address)

        self.call(name, work)

    @retry(times=2, minutes_between_retries=1)
    @step
    def start(self):
        """Read the workflow file."""

        def work() -> None:
            force = [name for name in self.force.split(",") if name]
            self.started = start_flow(self.file, shlex.split(self.overrides), force)
            self.data_sets, self.trainings = self.started.data_sets, self.started.trainings

        self.call("start", work)
        self.next(self.data, foreach="data_sets")

    @stage_step
    def data(self):
        """Make or find a data set."""
        self.stage(f"data-{self.input}")
        self.next(self.check)

    @stage_step
    def check(self):
        """Check it; its errors end the workflow."""
        self.stage(f"check-{self.input}")
        self.next(self.advise)

    @stage_step
    def advise(self):
        """Estimate what a teacher can add."""
        self.stage(f"advise-{self.input}")
        self.next(self.gather)

    @step
    def gather(self, inputs):
        """All data sets are ready."""
        self.merge_artifacts(inputs, include=["trainings", "started"])
        self.next(self.tune)

    @stage_step
    def tune(self):
        """Search the run's fields."""
        self.stage("tune")
        self.next(self.train, foreach="trainings")

    @stage_step
    def train(self):
        """Train with one seed."""
        threads_for(len(self.trainings), os.environ)
        self.stage(f"train-{self.input}")
        self.next(self.evaluate)

    @stage_step
    def evaluate(self):
        """Score the student."""
        threads_for(len(self.trainings), os.environ)
        self.stage(f"evaluate-{self.input}")
        self.next(self.study)

    @stage_step
    def study(self, inputs):
        """Run a study beside the trainings."""
        self.merge_artifacts(inputs, include=["started"])
        self.stage("study")
        self.next(self.export)

    @stage_step
    def export(self):
        """Export the best student."""
        self.stage("export")
        self.next(self.report)

    @stage_step
    def report(self):
        """Write the report."""
        self.stage("report")
        self.next(self.end)

    @step
    def end(self):
        """Everything is complete."""


if __name__ == "__main__":
    with stops_tasks(sys.argv):
        VadvWorkflow()

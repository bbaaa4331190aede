"""A workflow as resources of Argo Workflows: Metaflow's template, without retries of mistakes, and a schedule."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from vadv_dist.errors import MachineError, UserError
from vadv_dist.workflow.flow import find_flow
from vadv_dist.workflow.flow_process import FILE, prepare

NO_RETRY = 202  # Metaflow's METAFLOW_EXIT_DISALLOW_RETRY, with which a task ends after a user's mistake
_STORE = "METAFLOW_DATASTORE_SYSROOT_S3"
_KEPT_RUNS = 10
_SAID = 2000  # characters of Metaflow's output that an error shows


def argo_resources(
    file: str, image: str, *, resources: str = "", schedule: str | None = None, timezone: str | None = None
) -> dict[str, Any]:
    """Compile the flow for Argo Workflows, for `kubectl apply`; the flow's code is uploaded to Metaflow's datastore.

    Metaflow asks Argo to retry a task whatever its exit code, and has no setting for another condition, so the
    condition is added to what it compiles.

    Args:
        file: the workflow file in the image.
        image: an image with vadv.
        resources: further settings of Metaflow's `@kubernetes` for every task, such as `cpu=8,memory=32000`.
        schedule: five fields of cron; None starts the workflow by hand.
        timezone: name of the schedule's time zone; None is that of the cluster.
    Returns:
        a Kubernetes `List` with a `WorkflowTemplate` and, with a schedule, a `CronWorkflow`.
    Raises:
        UserError: Metaflow's datastore or the package `kubernetes` is missing.
        MachineError: Metaflow cannot compile the flow, or upload its code.
    """
    if find_spec("kubernetes") is None:
        raise UserError("The package kubernetes is missing. Install it with pip install 'vadv-dist[argo]'.")
    if _STORE not in os.environ:
        raise UserError(f"{_STORE} is not set. Set it to an s3:// prefix for the records of Metaflow.")
    environment = {**os.environ, FILE: file}
    prepare(environment)
    kubernetes = ",".join(each for each in (f"image={image}", resources) if each)
    options = ["--quiet", "--no-pylint", "--datastore", "s3", "--with", f"kubernetes:{kubernetes}"]
    command = [sys.executable, str(find_flow()), *options, "argo-workflows", "create", "--only-json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"Metaflow cannot compile the flow:\n{done.stderr.strip()[-_SAID:]}")
    template: dict[str, Any] = json.loads(done.stdout)
    for each in template["spec"]["templates"]:
        if "retryStrategy" in each:
            each["retryStrategy"]["expression"] = f"asInt(lastRetry.exitCode) != {NO_RETRY}"
    items = [template]
    if schedule is not None:
        items.append(_cron(template["metadata"]["name"], schedule, timezone))
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _cron(name: str, schedule: str, timezone: str | None) -> dict[str, Any]:
    spec = {
        "schedules": [schedule],
        **({} if timezone is None else {"timezone": timezone}),
        "concurrencyPolicy": "Forbid",  # a second run would only wait for the stages of the first
        "successfulJobsHistoryLimit": _KEPT_RUNS,
        "failedJobsHistoryLimit": _KEPT_RUNS,
        "workflowSpec": {"workflowTemplateRef": {"name": name}},
    }
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "CronWorkflow", "metadata": {"name": name}, "spec": spec}

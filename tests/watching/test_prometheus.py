"""The files of infra/ with the real Prometheus: checked, their rules tested, a running training read back."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_server import INFRA, PROMTOOL, free_port, needs_prometheus, prometheus

from vadv_dist.runs.folder import RunFolder
from vadv_dist.watching.gauges import GAUGES

RULES = INFRA / "prometheus"
DASHBOARDS = sorted((INFRA / "grafana" / "dashboards").glob("*.json"))


def expressions() -> list[str]:
    """Every query of the dashboards, with the variables that Grafana fills in."""
    found = []
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
        found += [note["expr"] for note in board["annotations"]["list"]]
    for name, value in {"$run": ".*", "$trial": ".*", "$metric": "mae", "$__range": "1h"}.items():
        found = [expression.replace(name, value) for expression in found]
    return found


@needs_prometheus
@pytest.mark.parametrize(
    "arguments", [("check", "config"), ("check", "rules"), ("test", "rules")], ids=["config", "rules", "rule tests"]
)
def test_promtool_accepts_the_files(arguments: tuple[str, str]) -> None:
    names = {"config": ["prometheus.yml"], "rules": ["recording.yml", "alerts.yml"]}[arguments[1]]
    if arguments[0] == "test":
        names = ["rules_test.yml"]
    done = subprocess.run([PROMTOOL, *arguments, *names], cwd=RULES, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_rules_and_dashboards_query_existing_metrics() -> None:
    groups = [
        group
        for name in ("recording.yml", "alerts.yml")
        for group in yaml.safe_load((RULES / name).read_text())["groups"]
    ]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    asked = [rule["expr"] for rule in rules] + expressions()
    names = {name for text in asked for name in re.findall(r"run:vadv_\w+:\w+|(?<![:\w])vadv_\w+", text)}
    assert names <= recorded | set(GAUGES)
    assert {rule["alert"] for rule in rules if "alert" in rule} >= {
        *("VadvLossNotANumber", "VadvStalled", "VadvRestarts", "VadvDataStarved", "VadvDiskAlmostFull"),
        *("VadvStraggler", "VadvPreempted", "VadvGoodputLow", "VadvCheckpointsBlock"),
    }


def test_dashboards_show_the_metrics_of_any_task() -> None:
    """Sentiment has an MAE, retrieval a mean average precision: the metric is chosen in the browser."""
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        assert "MAE" not in path.read_text()
        used = {
            name for text in re.findall(r'"expr": "(.*)"', path.read_text()) for name in re.findall(r"\$(\w+)", text)
        }
        assert used - {"__range"} <= {each["name"] for each in board["templating"]["list"]}
        named = [
            target["expr"] for panel in board["panels"] for target in panel["targets"] if "metric=" in target["expr"]
        ]
        assert named
        assert all('metric="$metric"' in text for text in named)


def test_dashboard_panels_do_not_overlap_and_have_unique_names() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 2
    for board in boards:
        taken: set[tuple[int, int]] = set()
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken
            assert max(x for x, _ in cells) < 24
            taken |= cells
    for path in sorted((INFRA / "grafana" / "provisioning").rglob("*.yml")):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1


@needs_prometheus
@pytest.mark.slow
def test_running_training_can_be_queried_and_its_series_end(write_config, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "vadv_dist.cli", "train", "--config", str(write_config("watched"))]
    command += [f"--telemetry.port={port}", "--telemetry.peak_flops=1e12", "--trainer.epochs=100"]
    with prometheus(tmp_path / "prometheus", local=[f"127.0.0.1:{port}"]) as server:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.wait_for('vadv_step{run="watched"} > 0', seconds=600)
        assert process.poll() is None  # read while it trains
        for expression in expressions():
            server.query(expression)  # Prometheus itself understands every panel
        server.wait_for('run:vadv_loss:max{run="watched", term="total"}')
        _, said = process.communicate(timeout=900)
        assert process.returncode == 0, said
        log = [line.to_json() for line in RunFolder.open(tmp_path / "runs" / "watched").metrics_log().lines()]
        steps = {line["step"]: line for line in log if line["kind"] == "step"}
        last_step = steps[max(steps)]
        last_epoch = [line for line in log if line["kind"] == "epoch"][-1]

        def value(selector: str) -> float:
            [(_, found)] = server.query(f"last_over_time({selector}[5m])")
            return found

        # The run waited for one more scrape, so Prometheus has its very last values.
        assert value("vadv_step") == max(steps)
        for term in ("total", "text_regression", "video_to_text"):
            assert value(f'vadv_loss{{term="{term}"}}') == last_step[term]
        assert value("vadv_tokens_per_second") == last_step["tokens_per_s"]
        assert value("vadv_model_flop_utilisation") == last_step["mfu"]
        mae = last_epoch["validation"]["student"]["mae"]
        assert value('vadv_validation{model="student", metric="mae"}') == mae
        # And what it saw on the way are lines of the log.
        [series] = server.get("/api/v1/query", query="vadv_step[5m]")["data"]["result"]
        assert len(series["values"]) >= 3
        assert {int(found) for _, found in series["values"]} <= {*steps, 0}
        labels, _ = server.query("last_over_time(vadv_step[5m])")[0]
        assert (labels["run"], labels["source"]) == ("watched", "all")
        server.wait_for("vadv_step or vadv_loss or vadv_validation", absent=True)

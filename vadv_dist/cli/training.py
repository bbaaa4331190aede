"""The commands that train: `train` and `tune`, and `recipes` and `config`, which help to write a config."""

import argparse
import json
import shlex
from typing import TYPE_CHECKING, Any

from vadv_dist.cli.parser import Commands, Parser, path
from vadv_dist.cli.studies import run_planned, seed_list
from vadv_dist.runtime.terminal import console, json_line, visible

if TYPE_CHECKING:
    from vadv_dist.config import Config


def add_training_commands(commands: Commands) -> None:
    """Add `train`, `recipes` and `config`."""
    train = commands.add_parser(
        "train",
        help="train a student with its teacher, or resume a run",
        description="Fields can be overridden with --section.field=VALUE or --section.field VALUE, for example "
        "--trainer.epochs=3.",
        allow_abbrev=False,
    )
    train.more_help = lambda: _fields("run")
    train.add_argument("--config", type=path, required=True, help="a YAML file, or the name of a recipe")
    train.add_argument("--print_config", action="store_true", help="print the resolved config and exit")
    train.add_argument("--dry-run", action="store_true", help="print parameters, batches, windows and memory, and exit")
    train.add_argument("--smoke", action="store_true", help="try training, validation and checkpoints on two batches")
    train.add_argument(
        "--seeds",
        type=seed_list,
        metavar="1,2,3",
        help="train the run with each of these seeds instead of run.seed, and print mean and standard deviation; the "
        "runs are in storage/name/runs",
    )
    train.add_argument("--json", action="store_true", help="print the result as one JSON object")
    train.set_defaults(call=_train)

    recipes = commands.add_parser("recipes", help="list the shipped configs, or copy one")
    actions = recipes.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser)
    copy = actions.add_parser("copy", help="copy a recipe to a new file")
    copy.add_argument("name")
    copy.add_argument("file", type=path)
    recipes.set_defaults(call=_recipes)

    config = commands.add_parser("config", help="print a JSON Schema of the configuration for editors")
    actions = config.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    schema = actions.add_parser("schema", help="print a JSON Schema (draft 2020-12)")
    schema.add_argument(
        "--kind",
        choices=("run", "extract", "search", "study", "workflow"),
        default="run",
        help="configuration to describe",
    )
    config.set_defaults(call=_config)


def add_tune_command(commands: Commands) -> None:
    """Add `tune`."""
    tune = commands.add_parser(
        "tune",
        help="search for a run's best loss weights or other fields, or resume a search",
        description="Fields of the config can be overridden with --section.field=VALUE, fields of the space file's "
        "search section with --search.field=VALUE, for example --search.sampler=random.",
        allow_abbrev=False,
    )
    tune.more_help = lambda: _fields("search")
    tune.add_argument("--config", type=path, required=True, help="the run to vary: a file or a recipe's name")
    tune.add_argument("--space", type=path, required=True, help="what to vary: a file, or a name in tune_spaces/")
    tune.add_argument("--num-trials", type=int, help="number of trials in the search (default: from the space file)")
    tune.add_argument("--seed", type=int, help="seed of the sampler (default: from the space file)")
    tune.add_argument("--no-ray", action="store_true", help="run trials one after another in this process")
    tune.add_argument("--dry-run", action="store_true", help="print how many trainings it consists of, and exit")
    tune.add_argument("--json", action="store_true", help="print the result as one JSON object")
    tune.set_defaults(call=_tune)


def print_config(config: Any) -> None:
    """Print a configuration as YAML that loads as the same configuration."""
    import yaml

    from vadv_dist.config import config_to_dict, config_to_yaml

    text = config_to_yaml(config)
    if visible(text) != text:  # has terminal control characters: dump it again with YAML's escapes
        text = yaml.safe_dump(config_to_dict(config), sort_keys=False)
    print(text, end="")


def _train(options: argparse.Namespace) -> int:
    from vadv_dist.config import load_config, names_run
    from vadv_dist.runtime.job_storage import with_lasting

    config = load_config(options.config, options.overrides)
    if options.print_config:
        print_config(config)
        return 0
    if options.seeds is not None:
        from vadv_dist.studies.plan import plan_seeds
        from vadv_dist.studies.record import numbered_for_seeds

        if not names_run(options.config, options.overrides):
            config = numbered_for_seeds(with_lasting(config, "run.storage"))
        # Without workers, a run trains in this process, as without --seeds.
        use_ray = config.trainer.workers > 0
        return run_planned(plan_seeds(config, options.seeds), options, use_ray=use_ray)
    if options.dry_run:
        from vadv_dist.launch.dry_run import describe, render

        facts = describe(config)
        if options.json:
            print(json_line(facts))
        else:
            render(facts, console())
        return 0
    if options.smoke:
        from vadv_dist.launch.smoke import smoke

        for line in smoke(config):
            print(line)
        return 0
    from vadv_dist.launch.driver import train
    from vadv_dist.storage import location

    config = with_lasting(config, "run.storage")
    result = train(config, console(stderr=True), numbered=not names_run(options.config, options.overrides))
    if options.json:
        print(json_line(result.to_json()))
    else:
        folder = location(config.run.storage) / result.run
        score = f"{result.task.score_metric.title} {result.score:.3f}"
        print(f"best validation {score} at step {result.best_step} ({result.stopped}); student in {folder}/student")
        if result.weights_collapsed is not None:
            print(f"warning: {result.weights_collapsed}")
        for remark in result.remarks:
            print(f"warning: {remark}")
        split = "test" if _has_test_split(config) else "valid"
        run = shlex.quote(str(folder))
        print(f"next: vadv evaluate {run} --split {split}; vadv report {run}")
    return 0


def _has_test_split(config: "Config") -> bool:
    """Whether the data sets of a run have clips to test it on."""
    from vadv_dist.data.dataset import Dataset

    return any(Dataset.open(source.uri).manifest.rows("test") for source in config.data.sources)


def _fields(kind: str) -> str:
    from vadv_dist.config.reference import KINDS, help_text

    return help_text(KINDS[kind], "search" if kind == "search" else "")


def _config(options: argparse.Namespace) -> int:
    from vadv_dist.config.reference import KINDS, json_schema

    print(json.dumps(json_schema(KINDS[options.kind]), indent=2))
    return 0


def _recipes(options: argparse.Namespace) -> int:
    from vadv_dist.config.recipes import copy_recipe, find_recipe, list_recipes

    if options.action == "copy":
        copy_recipe(options.name, options.file)
        command = find_recipe(options.name).command
        print(f"wrote {options.file}; start it with: vadv {command} --config {shlex.quote(str(options.file))}")
        return 0
    recipes = list_recipes()
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        print(f"{recipe.name:<{width}}  {recipe.command:<7}  {recipe.summary}")
    return 0


def _tune(options: argparse.Namespace) -> int:
    from vadv_dist.tuning.space_file import load_files

    given = {"num_trials": options.num_trials, "seed": options.seed}
    overrides = [*options.overrides, *(f"--search.{k}={v}" for k, v in given.items() if v is not None)]
    load_files(options.config, options.space, overrides)  # refuses them before torch and Optuna are imported
    from vadv_dist.tuning.search import plan, tune

    if options.dry_run:
        planned = plan(options.config, options.space, overrides, use_ray=not options.no_ray)
        print(json_line(planned.to_json()) if options.json else planned.sentence())
        return 0
    answer = tune(options.config, options.space, overrides, console(stderr=True), use_ray=not options.no_ray)
    if options.json:
        print(json_line(answer))
    else:
        if "front" in answer:
            from vadv_dist.tuning.front import front_table

            console().print(front_table(answer))
        print(answer["verdict"])
        best = shlex.quote(f"{answer['folder']}/best.yaml")
        print(f"report: {answer['folder']}/tune-report.html; next: vadv train --config {best}")
    return 0

"""The last stages: export the best student, and report on everything."""

from collections.abc import Sequence

from vadv_dist.config import config_to_dict
from vadv_dist.config.workflow import ExportStageConfig
from vadv_dist.inference.manifest import MANIFEST
from vadv_dist.storage import remove_tree, write_json
from vadv_dist.workflow.run_stages import TAUGHT, runs_of
from vadv_dist.workflow.stage import CARD, Outcome, Stage, Work

INT8 = "-int8"


def export_stage(config: ExportStageConfig, trained: Sequence[Stage], scored: Sequence[Stage]) -> Stage:
    """Export the student that is best on the validation split, of those with a teacher if there are any."""

    def run(work: Work) -> Outcome:
        from vadv_dist.inference.card_metadata import Publication
        from vadv_dist.inference.export import export_run
        from vadv_dist.workflow.cards import export_card

        runs = runs_of(work)
        taught = {name: pair for name, pair in runs.items() if pair[0].values["variant"] == TAUGHT}
        name, (chosen, evaluation) = min((taught or runs).items(), key=lambda item: float(item[1][0].values["cost"]))
        publication = Publication(config.license, config.languages, config.base_model)
        for kind in config.formats:
            if (work.folder / kind / MANIFEST).is_file():
                continue
            if (work.folder / kind).is_dir():
                remove_tree(work.folder / kind)
            export_run(
                chosen.place("run"),
                work.folder / kind,
                format=kind.removesuffix(INT8),
                int8=kind.endswith(INT8),
                publication=publication,
                evaluations=evaluation.folder,
            )
        export_card(work.folder, config.formats, name).write_html(work.folder / CARD)
        values = {"formats": list(config.formats), "of": name}
        return Outcome(values, [f"{kind}/{MANIFEST}" for kind in config.formats])

    inputs = (*trained, *scored)
    return Stage("export", "export", config_to_dict(config), run, inputs=inputs)


def report_stage(name: str, inputs: Sequence[Stage]) -> Stage:
    """One page with everything that the workflow found, and links to the page of every stage."""

    def run(work: Work) -> Outcome:
        from vadv_dist.workflow.summary import summary_page

        page, document = summary_page(name, work)
        page.write(work.folder / "report.html")
        page.write_html(work.folder / CARD)
        write_json(work.folder / "report.json", document)
        return Outcome({"page": "report.html"}, ("report.json",))

    return Stage("report", "report", {"name": name}, run, inputs=tuple(inputs))

"""How often `vadv advise` is right on made data, where the answer follows from the random model.

    OMP_NUM_THREADS=1 python benchmarks/advise.py run --out advice
    python benchmarks/advise.py tables --out advice
    OMP_NUM_THREADS=1 python benchmarks/advise.py guards --out advice

In 20 settings I(words; video) exceeds I(words; label) by at least 0.1 nats; in 10 it is at least 0.1 below, because the
video is weak; in 10 the video is independent of the label. Eight more lie between: they have no right answer and are
not counted. Both quantities are exact sums over the random model (`data/synth/truth.py`). The settings were fixed
before any was run, and the limits of the rule were chosen on other data: that on which benchmarks/teacher_guards.py
trains students, about which `guards` asks. A setting that is in the folder already is not repeated.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import teacher_guards

from vadv_dist.advice import advise
from vadv_dist.data.synth import make_dataset
from vadv_dist.data.synth.model import GenerativeModel
from vadv_dist.data.synth.truth import mutual_informations
from vadv_dist.storage import write_json

MARGIN = 0.1
# Annotator noise and video noise in label units; None is a video that is independent of the label.
HELPS = [
    *((a, v) for a in (1.5, 2.0, 2.5, 3.0) for v in (0.2, 0.4, 0.6)),
    *((1.2, 0.2), (1.2, 0.4), (2.0, 0.8), (2.5, 0.8), (2.5, 1.0), (3.0, 0.8), (3.0, 1.0), (3.0, 1.2)),
]
WEAK = [
    (0.4, 1.2),
    (0.4, 2.0),
    (0.6, 2.0),
    (0.8, 2.0),
    (0.8, 4.0),
    (0.8, 6.0),
    (1.2, 2.0),
    (1.2, 4.0),
    (1.6, 4.0),
    (2.0, 6.0),
]
NOTHING = [(a, None) for a in (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 2.0, 2.5, 3.0)]
BETWEEN = [(0.4, 0.2), (0.8, 0.2), (0.8, 0.4), (0.8, 0.6), (1.2, 0.8), (1.6, 1.2), (2.0, 1.0), (2.0, 1.2)]
CLIPS = (1600, 2400)  # in turn
FIRST_SEED = 1001


@dataclass(frozen=True)
class Setting:
    """One made data set, and the right answer; None between the two."""

    seed: int
    annotator: float
    video: float | None
    right: str | None

    @property
    def model(self) -> GenerativeModel:
        """The random model."""
        if self.video is None:
            return GenerativeModel(s_annot=self.annotator, informative_video=False)
        return GenerativeModel(s_annot=self.annotator, s_video=self.video)

    @property
    def clips(self) -> int:
        """Number of clips over all splits."""
        return CLIPS[self.seed % len(CLIPS)]


def settings() -> list[Setting]:
    """All settings, each with a seed of its own; refuses a margin that does not hold."""
    kinds = [("likely helps", HELPS), ("unlikely", WEAK), ("unlikely", NOTHING), (None, BETWEEN)]
    numbered = enumerate(((right, *noise) for right, noises in kinds for noise in noises), FIRST_SEED)
    found = [Setting(seed, annotator, video, right) for seed, (right, annotator, video) in numbered]
    for setting in found:
        video, label = mutual_informations(setting.model)
        side = {"likely helps": video - label >= MARGIN, "unlikely": label - video >= MARGIN}
        assert side.get(setting.right or "", abs(video - label) < MARGIN), setting
    return found


def run(out: Path) -> None:
    """Make each data set in turn and ask."""
    out.mkdir(parents=True, exist_ok=True)
    for setting in settings():
        file = out / f"{setting.seed}.json"
        if file.exists():
            continue
        with tempfile.TemporaryDirectory() as scratch:
            made = {"s_annot": setting.annotator, "informative_video": setting.video is not None}
            if setting.video is not None:
                made["s_video"] = setting.video
            make_dataset(Path(scratch) / "data", num_clips=setting.clips, seed=setting.seed, **made)
            start, cpu = time.perf_counter(), time.process_time()
            advice = advise(Path(scratch) / "data")
            seconds = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        write_json(file, {**advice.to_json(), **seconds})
        print(setting, advice.verdict, flush=True)


def guards(out: Path) -> None:
    """Print the answers for the data of teacher_guards.py, whose teacher sees the visual feature only."""
    print("| data | answers | difference in nats, by seed | gain, by seed | clearer target, by seed |")
    print("|---|---|---|---|---|")
    for kind, made in teacher_guards.KINDS.items():
        answers, columns = Counter(), {"difference": [], "gain": [], "clearer_target": []}
        for seed in range(1, 9):
            with tempfile.TemporaryDirectory() as scratch:
                data = Path(scratch) / "data"
                make_dataset(data, num_clips=1600, seed=seed, **teacher_guards.SMALL, **made)
                found = advise(data, features=("visual",))
            answers[found.verdict] += 1
            for name, values in columns.items():
                values.append(getattr(found.complementarity, name).mean)
        told = ", ".join(f"{verdict} {count}" for verdict, count in answers.most_common())
        ranges = (f"{min(values):+.3f} to {max(values):+.3f}".replace("-", "−") for values in columns.values())
        print(f"| {kind} | {told} | {' | '.join(ranges)} |", flush=True)


def tables(out: Path) -> None:
    """Counts, every wrong answer, and all settings."""
    rows = [
        (s, json.loads((out / f"{s.seed}.json").read_text())) for s in settings() if (out / f"{s.seed}.json").exists()
    ]
    counted = [(s, found) for s, found in rows if s.right is not None]
    right = [s for s, found in counted if found["verdict"] == s.right]
    cpu = sorted(found["cpu_seconds"] for _, found in rows)
    print(
        f"right: {len(right)} of {len(counted)}; CPU seconds: median {cpu[len(cpu) // 2]:.1f}, at most {cpu[-1]:.1f}\n"
    )
    for title, chosen in (
        ("wrong", [(s, found) for s, found in counted if found["verdict"] != s.right]),
        ("between", [(s, found) for s, found in rows if s.right is None]),
        ("all that count", counted),
    ):
        print(f"{title}:\n")
        print(
            "| clips | annotator noise | video noise | exact difference | right answer | answer "
            "| difference | gain | clearer target |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        for setting, found in chosen:
            print(_row(setting, found))
        print()


def _row(setting: Setting, found: dict) -> str:
    video, label = mutual_informations(setting.model)
    noise = "uninformative" if setting.video is None else f"{setting.video:g}"
    intervals = (found["complementarity"][name] for name in ("difference", "gain", "clearer_target"))
    shown = [f"{one['mean']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})" for one in intervals]
    cells = (found["clips"], setting.annotator, noise, f"{video - label:+.3f}", setting.right or "none")
    return f"| {' | '.join(map(str, (*cells, found['verdict'], *shown)))} |".replace("-", "−")


def main() -> None:
    """Run the part that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("run", "tables", "guards"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    {"run": run, "tables": tables, "guards": guards}[options.part](options.out)


if __name__ == "__main__":
    main()

"""Make the pictures of README.md in docs/img/: `python -m docs.pictures`, about two minutes on two CPU cores.

Everything in them is real output of the commands, of synthetic data and of drawn clips. Pages are photographed by a
headless Chromium (Debian: `apt-get install chromium`), which nothing else here needs.
"""

import contextlib
import csv
import io
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image, ImageDraw
from rich.console import Console

from vadv_dist.cli import main
from vadv_dist.errors import UserError
from vadv_dist.watching.watch import state_of, watch

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "img"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAX_BYTES = 200_000
WIDTH, HEIGHT, FRAMES, FPS = 320, 240, 40, 20
SENTENCES = (
    (-2.4, "I would like those two hours back"),
    (-1.2, "the second half does not hold together"),
    (0.0, "it is about as long as the first one"),
    (1.2, "the two of them are fun to watch"),
    (2.6, "I have seen it three times and cried each time"),
)


def make_pictures(browser: str) -> None:
    """Make data, a run and pages in this empty folder, and photograph them."""
    command("synth", "data/made", "--num-clips", 1600, "--seed", 1)
    run = Path("runs/demo")
    options = {
        "run.name": "demo",
        "trainer.num_workers": 0,
        "trainer.use_gpu": "false",
        "engine.kind": "torch",
        "telemetry.log_every_steps": 5,
    }
    with training("--config", "demo", *(f"--{name}={value}" for name, value in options.items()), run=run):
        save_terminal(run)
    command("evaluate", run)
    command("report", run)
    save_page(browser, run / "report.html", "report", "header, nav, #metrics", 850)
    save_page(browser, run / "report.html", "report-errors", "#errors", 590)
    save_page(browser, run / "report.html", "report-teacher", "#teacher", 628)
    command("extract", "--config", write_clips(Path("clips")))
    command("data-info", "data/talks", "--html", "page.html")
    save_page(browser, Path("page.html"), "data-info", "#frames", 580)


def command(*arguments: object) -> None:
    """Run a command of `vadv` without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        if code := main([str(argument) for argument in arguments]):
            sys.exit(f"vadv {arguments[0]} failed with exit code {code}")


@contextlib.contextmanager
def training(*arguments: str, run: Path) -> Iterator[None]:
    """Train in another process; the block runs in the middle of it."""
    process = subprocess.Popen([sys.executable, "-m", "vadv_dist.cli", "train", *arguments], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(UserError):  # the run does not exist yet
            if len(state_of(str(run))["validation"]) >= 6:
                break
        time.sleep(0.2)
    if not process.returncode:
        yield
    if code := process.wait():
        sys.exit(f"vadv train failed with exit code {code}")


def save_terminal(run: Path) -> None:
    """What `vadv watch` shows, as SVG."""
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    watch(str(run), console, once=True)
    text = console.export_svg(title=f"vadv watch {run}")
    # No fonts from another server: the reader's monospace font is used.
    start, end = text.index("@font-face"), text.index("}", text.rindex("@font-face")) + 1
    text = (text[:start] + text[end:]).replace("Fira Code", "ui-monospace, Menlo, Consolas")
    (IMAGES / "watch.svg").write_text(text, encoding="utf-8")


def save_page(browser: str, page: Path, name: str, shown: str, height: int) -> None:
    """Photograph the parts of a page that a CSS selector names."""
    hidden = f"<style>:is(header, nav, footer, section):not({shown}) {{ display: none; }}</style></head>"
    with tempfile.TemporaryDirectory() as scratch:
        copy, shot = Path(scratch) / "page.html", Path(scratch) / "page.png"
        copy.write_text(page.read_text(encoding="utf-8").replace("</head>", hidden, 1), encoding="utf-8")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root, Chromium has none
        look = ["--headless", "--disable-gpu", "--hide-scrollbars", f"--window-size=1000,{height}", *sandbox]
        target = [f"--user-data-dir={scratch}/profile", f"--screenshot={shot}", f"file://{copy}"]
        subprocess.run([browser, *look, *target], check=True, capture_output=True)
        with Image.open(shot) as image:
            image.convert("RGB").save(IMAGES / f"{name}.webp", lossless=True)


def write_clips(folder: Path) -> Path:
    """Drawn clips of a talking head, its face in OpenFace's format, and a configuration to extract them."""
    from tests.features.tiny_models import write_classifier, write_clip

    models, faces = folder / "models", folder / "openface"
    write_clip(models / "clip")
    write_classifier(models / "expression")
    faces.mkdir(parents=True)
    rows = []
    for number in range(10):
        label, text = SENTENCES[number % len(SENTENCES)]
        name, split = f"talk{number}", ("train", "train", "train", "valid", "test")[number // 2]
        boxes = write_talk(folder / f"{name}.mp4", label, number)
        rows.append((f"{name}_0", name, split, label, text, f"{name}.mp4"))
        with (faces / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("timestamp", "confidence", "success", "x_0", "x_1", "y_0", "y_1"))
            writer.writerows((frame / FPS, 0.98, 1, *box) for frame, box in enumerate(boxes))
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("clip_id", "video_id", "split", "label", "text", "path"), *rows])
    config = folder / "extract.yaml"
    config.write_text(
        f"clips: {{csv: {folder}/clips.csv, source: talks}}\n"
        "output: {uri: data/talks}\n"
        "frames: {face: 8}\n"
        f"image: {{encoder: {models}/clip}}\n"
        f"faces: {{kind: openface, path: {faces}}}\n"
        f"expression: {{encoder: {models}/expression}}\n"
        "compute: {num_workers: 0, use_gpu: false}\n"
    )
    return config


def write_talk(path: Path, mood: float, seed: int) -> list[tuple[float, float, float, float]]:
    """A clip of a drawn head that talks; returns its box in each frame: left, right, top, bottom."""
    boxes = []
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "20"}
        stream.codec_context.time_base = Fraction(1, FPS)
        for number in range(FRAMES):
            picture, box = draw_head(mood, seed, number / FPS)
            boxes.append(box)
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return boxes


def draw_head(mood: float, seed: int, time_s: float) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """One frame, and the box of the face in it."""
    scale = 3  # drawn larger and reduced, for smooth edges
    wall = ((206, 216, 222), (222, 212, 200), (208, 219, 205), (216, 208, 222), (226, 219, 199))[seed % 5]
    skin = ((236, 196, 160), (141, 96, 66), (219, 172, 132), (92, 62, 48), (246, 214, 186))[seed * 2 % 5]
    hair = ((60, 42, 32), (24, 22, 24), (150, 96, 40), (36, 30, 30), (120, 120, 124))[seed * 3 % 5]
    image = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), wall)
    draw = ImageDraw.Draw(image)
    x, y = 130 + 12 * (seed % 6) + 14 * math.sin(1.7 * time_s + seed), 108 + 4 * math.sin(3.1 * time_s + seed)

    def ellipse(left: float, top: float, right: float, bottom: float, colour: tuple[int, int, int]) -> None:
        draw.ellipse([round(scale * side) for side in (x + left, y + top, x + right, y + bottom)], fill=colour)

    ellipse(-78, 76, 78, 240, tuple(value // 2 for value in wall))  # type: ignore[arg-type]  # three values
    ellipse(-56, -72, 56, 40, hair)
    ellipse(-48, -56, 48, 66, skin)
    eye = 1.0 if (time_s + seed * 0.37) % 1.6 < 0.1 else 6.0
    for side in (-19, 19):
        ellipse(side - 6, -8 - eye, side + 6, -8 + eye, (250, 250, 250))
        ellipse(side - 3, -8 - min(eye, 4), side + 3, -8 + min(eye, 4), (40, 36, 36))
    opened = 3 + 7 * abs(math.sin(9 * time_s + seed))
    curve = 5 * mood
    points = [(x + dx, y + 36 - curve * (dx / 22) ** 2) for dx in range(-22, 23)]
    points += [(px, py + opened * (1 - ((px - x) / 22) ** 2) + 2) for px, py in reversed(points)]
    draw.polygon([(scale * px, scale * py) for px, py in points], fill=(122, 46, 50))
    box = (x - 48.0, x + 48.0, y - 56.0, y + 66.0)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), box


def run() -> int:
    """Make all pictures; exit code 2 says what is missing."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"No browser: none of {', '.join(BROWSERS)} is on the path. Install Chromium.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        make_pictures(browser)
    sizes = {path.name: path.stat().st_size for path in sorted(IMAGES.iterdir())}
    for name, size in sizes.items():
        print(f"{size:>8,} bytes  docs/img/{name}")
    too_large = [name for name, size in sizes.items() if size > MAX_BYTES]
    if too_large:
        print(f"Larger than {MAX_BYTES:,} bytes: {', '.join(too_large)}.", file=sys.stderr)
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(run())

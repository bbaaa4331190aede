"""The wheel has everything that `vadv` needs outside of a checkout."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.test_pages import fresh_copy


@pytest.mark.slow
def test_an_installed_wheel_works_outside_of_the_checkout(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    source = fresh_copy(tmp_path / "source")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "wheels", source)
    run(sys.executable, "-m", "venv", "--without-pip", "venv")
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel)
    # The dependencies are those of this environment; a .pth file's folder comes after the installed wheel.
    (site_packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    vadv = tmp_path / "venv" / "bin" / "vadv"
    where = run(python, "-c", "import vadv_dist; print(vadv_dist.__file__)").strip()
    assert Path(where).is_relative_to(site_packages)
    assert "vadv 0." in run(vadv, "--version")
    assert "mosi-minilm" in run(vadv, "recipes")
    run(vadv, "recipes", "copy", "demo", "mine.yaml")
    run(vadv, "synth", "data/made", "--num-clips", "40")
    assert (tmp_path / "data" / "made" / "dataset.json").is_file()

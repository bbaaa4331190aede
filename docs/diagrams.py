"""The diagrams of the pages as pictures, so that the site shows them without a network.

A page has its diagrams as Mermaid, which GitHub draws. On the site each is the SVG file in docs/diagrams/ that is named
by its text: mkdocs calls `on_page_markdown`. After a change, draw them anew: `pip install mermaidx`, which contains
Mermaid and an engine to run it, then `python -m docs.diagrams`.
"""

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

PAGES = Path(__file__).parent
FOLDER = PAGES / "diagrams"
_BLOCK = re.compile(r"```mermaid\n(.*?)```\n", re.DOTALL)


def name_of(page: str, diagram: str) -> str:
    """The file of a diagram of a page."""
    return f"{Path(page).stem}-{hashlib.sha256(diagram.encode()).hexdigest()[:8]}.svg"


def diagrams() -> dict[str, str]:
    """The diagrams of all pages by their files."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md"))}
    return {name_of(page, found): found for page, text in texts.items() for found in _BLOCK.findall(text)}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace each diagram of a page of the site by its picture; called by mkdocs.

    Raises:
        FileNotFoundError: it was not drawn since its last change.
    """

    def picture(block: re.Match[str]) -> str:
        name = name_of(page.file.src_path, block[1])
        if not (FOLDER / name).is_file():
            raise FileNotFoundError(f"docs/diagrams/{name} is missing. Draw the diagrams: python -m docs.diagrams")
        return f"[![Diagram](diagrams/{name})](diagrams/{name})\n"

    return _BLOCK.sub(picture, markdown)


def draw() -> int:
    """Draw all diagrams anew."""
    try:
        import mermaidx  # type: ignore[import-not-found]  # only needed here
    except ImportError:
        print("docs.diagrams: mermaidx is not installed. Install it: pip install mermaidx", file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    wanted = diagrams()
    for file in FOLDER.iterdir():
        if file.name not in wanted:
            file.unlink()
    for name, diagram in wanted.items():
        svg = mermaidx.render(diagram).svg().replace("background-color: transparent", "background-color: white")
        (FOLDER / name).write_text(svg, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(draw())

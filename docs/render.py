"""Renders what a terminal showed as a picture: `python -m docs.render TITLE < FILE > image.svg`.

FILE is real output with its colours, as `tmux capture-pane -e -p` writes it.
"""

import io
import re
import sys

from rich.console import Console
from rich.text import Text

_WIDTH = 100


def render(output: str, title: str) -> str:
    """The output as SVG, which needs no font and no file from elsewhere."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(output.rstrip()), soft_wrap=False)
    picture = console.export_svg(title=title, unique_id="hutch")
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    return picture.replace("Fira Code", "DejaVu Sans Mono").replace("\N{NO-BREAK SPACE}", "&#160;")


if __name__ == "__main__":
    print(render(sys.stdin.read(), sys.argv[1]))

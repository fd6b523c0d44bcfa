"""Page of the committed figures."""

import json
from pathlib import Path

import yaml

from benchmarks.tables.spec import heading
from benchmarks.utils.paths import config_files
from benchmarks.utils.pictures import SUFFIX, read_pictures
from benchmarks.utils.text import markdown_page

_SCRIPTS = ("figures.data.js", "../../assets/element.js", "../../assets/compare.js")


def figures_page(folder: Path) -> str:
    """Return a page with every figure in a folder: what it shows, its pictures to compare, and the command for it.

    Args:
        folder: with a PNG file for each figure, named like its file in `configs/figure`, and its pictures, if any.
    """
    parts = []
    for name, file in config_files("figure").items():
        if (folder / f"{name}.png").exists():
            title = yaml.safe_load(file.read_text(encoding="utf-8"))["title"]
            command = f"```bash\nmake reproduce-{name.replace('_', '-')}\n```"
            parts += [f"## {heading('Figure', name)}", f"{title}.", f"![{title}]({name}.png)"]
            if (folder / f"{name}{SUFFIX}").exists():
                parts.append(f'<div class="compare" data-figure="{name}"></div>')
            parts.append(command)
    return markdown_page("Figures", *parts, "\n".join(f'<script src="{script}" defer></script>' for script in _SCRIPTS))


def figures_script(folder: Path) -> str:
    """Return a script that hands the pictures of figures to the page.

    Raises:
        ResultsError: see `read_pictures`.
    """
    pictures = {path.name.removesuffix(SUFFIX): read_pictures(path) for path in sorted(folder.glob(f"*{SUFFIX}"))}
    return f"window.figurePictures = {json.dumps(pictures, ensure_ascii=False)};\n"

"""Page of the committed figures."""

from pathlib import Path

import yaml

from benchmarks.tables.spec import heading
from benchmarks.utils.paths import config_files
from benchmarks.utils.text import markdown_page


def figures_page(folder: Path) -> str:
    """Return a page with every figure in a folder: what it shows, and the command that makes it.

    Args:
        folder: with a PNG file for each figure, named like its file in `configs/figure`.
    """
    parts = []
    for name, file in config_files("figure").items():
        if (folder / f"{name}.png").exists():
            title = yaml.safe_load(file.read_text(encoding="utf-8"))["title"]
            command = f"```bash\nmake reproduce-{name.replace('_', '-')}\n```"
            parts += [f"## {heading('Figure', name)}", f"{title}.", f"![{title}]({name}.png)", command]
    return markdown_page("Figures", *parts)

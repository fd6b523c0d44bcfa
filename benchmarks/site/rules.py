"""Page that compares rules: how much of the gap from frozen control to backpropagation each closes, at which cost."""

import json
from pathlib import Path

from benchmarks.errors import ResultsError
from benchmarks.site.results import TableResults
from benchmarks.utils.text import markdown_page

CLOSED = "closed"
"""The table's metric: the share of the gap."""
MEASURED = {"gcn": "gcn", "dcn": "dcn", "nerf_release": "nerf", "macro": "transformer_macro"}
"""Column of the table → model whose training step was measured."""
_SCRIPTS = ("../assets/plotly.min.js", "rules.data.js", "../assets/plots.js", "../assets/rules.js")


def rules_page(table: TableResults) -> str:
    """Return the page as Markdown.

    Args:
        table: of rules, one row each, with the share of the gap as a metric.
    """
    return markdown_page(
        "Rules, compared",
        "How far each rule comes from the frozen control (0), in which nothing below the feedback points learns, to "
        f"backpropagation (1): the numbers of [{table.spec.heading}](tables/{table.spec.name}.md), which says how they "
        "were made. The lines are standard deviations over seeds. [What each rule does](../docs/rules.md).",
        '<div id="closed"></div>',
        "## What a step costs",
        "The time of a training step relative to backpropagation's, where it was measured "
        "([all steps](bench/rules.md); for `nerf_release` that of the larger `nerf`). The rules stand "
        "in the same order as above.",
        '<div id="cost"></div>',
        "\n".join(f'<script src="{script}" defer></script>' for script in _SCRIPTS),
    )


def rules_script(table: TableResults, steps: Path) -> str:
    """Return a script that hands the shares and costs to the page.

    Args:
        table: see `rules_page`.
        steps: file with the times of training steps, as `bench` writes it.

    Raises:
        ResultsError: the file cannot be read.
    """
    costs = _costs(steps)
    points = [
        {
            "rule": result.row,
            "column": result.column,
            "stand_in": result.data == "stand-in",
            "anchor": result.anchor,
            "mean": result.mean,
            "std": result.std,
            "cost": costs.get((MEASURED.get(result.column, ""), result.row)),
        }
        for result in table.results
        if result.metric == CLOSED and result.mean is not None
    ]
    content = {"page": f"tables/{table.spec.name}.html", "points": points}
    return f"window.rulesData = {json.dumps(content, ensure_ascii=False, allow_nan=False)};\n"


def _costs(steps: Path) -> dict[tuple[str, str], float]:
    """Return the time of a step relative to backpropagation's by model and rule."""
    try:
        rows = json.loads(steps.read_text(encoding="utf-8"))
        return {(row["model"], row["rule"]): float(row["ratio_to_bp"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"the times of training steps in '{steps}' cannot be read: {error}") from None

"""The lowest versions that are tested are those that the library asks for; what the suite imports, it asks for."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions

from benchmarks.utils.paths import REPOSITORY


def test_lowest_constraints_are_the_lower_bounds_of_the_library() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (dependencies,) = re.findall(r"^dependencies = \[(.*?)\]", project, flags=re.MULTILINE | re.DOTALL)
    asked = dict(re.findall(r'"([\w-]+)>=([\d.]+)"', dependencies))
    tested = dict(
        re.findall(r"^([\w-]+)==([\d.]+)$", (REPOSITORY / "constraints-lowest.txt").read_text(), re.MULTILINE)
    )
    assert asked
    for name, bound in asked.items():
        assert (tested[name] + ".").startswith(bound + ".")


def _imported() -> Iterator[str]:
    """Packages that the suite's modules import, wherever in them."""
    for folder in ("benchmarks", "hydra_plugins"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.split(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.split(".")[0]


def test_the_suite_asks_for_every_package_that_it_imports() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    dependencies, *_ = re.findall(r"^dependencies = \[(.*?)\]", project, flags=re.MULTILINE | re.DOTALL)
    extras = re.findall(r"^(?:suite|search|slurm|ray) = \[(.*?)\]", project, flags=re.MULTILINE | re.DOTALL)
    assert len(extras) == 4
    asked = {name.lower().replace("_", "-") for name in re.findall(r'"([\w-]+)>=', dependencies + "".join(extras))}
    own = {"benchmarks", "dfa", "hydra_plugins", "__future__"}
    known = packages_distributions()
    for package in set(_imported()) - own - sys.stdlib_module_names:
        named = {name.lower().replace("_", "-") for name in known.get(package, [package])}
        assert named & asked, f"'{package}' ({', '.join(named)}) is imported and not asked for"

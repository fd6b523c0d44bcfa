"""The lowest versions that are tested are those that the library asks for."""

import re

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

"""MkDocs is strict, and what the site lacks is reported in one line."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.commands import site
from benchmarks.errors import ResultsError
from benchmarks.site import build as building
from benchmarks.site.navigation import Navigation


def _sources(folder: Path, tables: list[str]) -> None:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("# Start\n\n[nowhere](gone.md)\n", encoding="utf-8")
    for name in ("assets/site.css", "assets/iframe-worker.js"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def _navigation(sources: Path, tables: dict[str, str]) -> Navigation:
    return [{"Start": "README.md"}]


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="no package mkdocs (make test-site)")
def test_a_link_to_nothing_fails_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "WORK", tmp_path / "work")
    monkeypatch.setattr(building, "write_sources", _sources)
    monkeypatch.setattr(building, "navigation", _navigation)
    with pytest.raises(SystemExit) as ended:
        site.main(["--to", str(tmp_path / "site")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "'gone.md'" in error and error.count("\n") == 1


def test_a_missing_package_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        site.main([])
    assert ended.value.code == 2 and "error: mkdocs is not installed; `make site`" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("of years")
    with pytest.raises(ResultsError, match="holds something else than a site"):
        building.build(tmp_path)
    assert (tmp_path / "thesis.txt").exists()
    with pytest.raises(ResultsError, match="'/dev/null' holds something else than a site"):
        building.build(Path("/dev/null"))

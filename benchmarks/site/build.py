"""Building of the site: its sources from documents, tables and records, then its pages by MkDocs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import yaml

from benchmarks.errors import ConfigError, ResultsError
from benchmarks.site.api import api_pages
from benchmarks.site.details import data_script
from benchmarks.site.documents import documents, write_documents
from benchmarks.site.figures import figures_page, figures_script
from benchmarks.site.navigation import navigation
from benchmarks.site.quotes import with_numbers
from benchmarks.site.results import TABLES, committed_tables, read_table
from benchmarks.site.rules import rules_page, rules_script
from benchmarks.site.tables import table_page
from benchmarks.tables.archive import RECORDS
from benchmarks.tables.spec import load_spec
from benchmarks.utils.files import write_text
from benchmarks.utils.paths import REPOSITORY

ASSETS = Path(__file__).parent / "assets"
WORK = REPOSITORY / "build" / "site"
"""Folder of the sources and the complete configuration."""
RULES_TABLE = "table_6"


def build(target: Path) -> None:
    """Build the site.

    Args:
        target: folder of the pages; what it held is replaced.

    Raises:
        ConfigError: MkDocs or what its pages need is not installed.
        ResultsError: a table or record that cannot be read, pages that MkDocs rejects, or a target
            that holds something else than a site.
    """
    if target.exists() and not (target / "sitemap.xml").exists() and (not target.is_dir() or any(target.iterdir())):
        raise ResultsError(f"'{target}' holds something else than a site, which would be deleted: name another folder")
    for package in ("mkdocs", "material", "mkdocstrings", "plotly"):
        if find_spec(package) is None:
            raise ConfigError(f"{package} is not installed; `make site` installs what the site needs")
    sources = WORK / "sources"
    shutil.rmtree(WORK, ignore_errors=True)
    tables = committed_tables()
    write_sources(sources, tables)
    config = WORK / "mkdocs.yml"
    content = {
        "INHERIT": str(REPOSITORY / "mkdocs.yml"),
        "docs_dir": str(sources),
        "site_dir": str(target.absolute()),
        "nav": navigation(sources, {name: load_spec(name).heading for name in tables}),
    }
    write_text(config, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an advertisement of the theme's
    done = subprocess.run(command, cwd=REPOSITORY, env=quiet, check=False, capture_output=True, text=True)
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith(("WARNING", "ERROR"))]
        raise ResultsError(f"MkDocs rejects the pages: {' '.join(complaints) or done.stderr.strip()}")


def write_sources(folder: Path, tables: Sequence[str]) -> None:
    """Write what MkDocs makes the site of.

    Args:
        folder: of the sources.
        tables: to make pages of.

    Raises:
        ResultsError: a table or record that cannot be read.
    """
    write_documents(REPOSITORY, folder)
    with ProcessPoolExecutor() as pool:  # reading records takes most of the time
        list(pool.map(partial(_write_table, folder=folder / "results"), tables))
    rules = read_table(RULES_TABLE)
    write_text(folder / "results" / "rules.md", rules_page(rules))
    write_text(
        folder / "results" / "rules.data.js", rules_script(rules, REPOSITORY / "results" / "bench" / "rules.json")
    )
    figures = REPOSITORY / "results" / "figures"
    write_text(folder / "results" / "figures" / "index.md", figures_page(figures))
    write_text(folder / "results" / "figures" / "figures.data.js", figures_script(figures))
    for file in figures.glob("*.png"):
        shutil.copyfile(file, folder / "results" / "figures" / file.name)
    for page, text in api_pages(REPOSITORY / "dfa").items():
        write_text(folder / "api" / page, text)
    shutil.copytree(ASSETS, folder / "assets")
    shutil.copyfile(_plotly(), folder / "assets" / "plotly.min.js")


def write_numbers() -> list[Path]:
    """Write the numbers that documents quote anew from the committed tables; return the documents that changed.

    Raises:
        ResultsError: a link to a number that no table has.
    """
    changed = []
    for document in documents(REPOSITORY):
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        if (new := with_numbers(text)) != text:
            write_text(REPOSITORY / document, new)
            changed.append(document)
    return changed


def _write_table(name: str, folder: Path) -> None:
    table = read_table(name)
    committed = (TABLES / f"{name}.md").read_text(encoding="utf-8")
    write_text(folder / "tables" / f"{name}.md", table_page(table, committed, "../../"))
    write_text(folder / "tables" / f"{name}.data.js", data_script(table))
    for suffix in ("csv", "tex"):
        shutil.copyfile(TABLES / f"{name}.{suffix}", folder / "tables" / f"{name}.{suffix}")
    if table.archive.runs:
        (folder / "records").mkdir(exist_ok=True)
        shutil.copyfile(RECORDS / f"{name}.parquet", folder / "records" / f"{name}.parquet")


def _plotly() -> Path:
    """Return the script that the package plotly ships."""
    spec = find_spec("plotly")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("plotly is not installed; `make site` installs what the site needs")
    return Path(spec.submodule_search_locations[0]) / "package_data" / "plotly.min.js"

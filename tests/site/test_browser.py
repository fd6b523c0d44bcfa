"""The built site in a browser, opened from disk: `make test-site`."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.site.results import TABLES, committed_tables, read_table
from benchmarks.utils.paths import REPOSITORY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

FIGURES = TABLES.parent / "figures"
_SITE = Path(os.environ.get("DFA_SITE_DIR", REPOSITORY / "site"))
_BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_LACKS = [
    reason
    for reason, lacking in {
        "no built site (make site)": not (_SITE / "index.html").exists(),
        "no package playwright (make test-site)": find_spec("playwright") is None,
        "no Chromium": _BROWSER is None,
    }.items()
    if lacking
]
pytestmark = pytest.mark.skipif(bool(_LACKS), reason="; ".join(_LACKS))
_PAGES = sorted(str(path.relative_to(_SITE)) for path in _SITE.rglob("*.html") if path.name != "404.html")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


def _failure(request: "Request") -> list[str]:
    """Tell what could not be loaded; a reload or the end of a test breaks off what is on its way, such as the icon."""
    return [] if request.failure == "net::ERR_ABORTED" else [f"{request.url}: {request.failure}"]


@contextmanager
def opened(browser: "Browser", page: str, width: int = 1360) -> Iterator["Page"]:
    """Open a page without a network; no message of a mistake may be in its console."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    tab, messages = context.new_page(), []
    tab.on("console", lambda message: messages.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("requestfailed", lambda request: messages.extend(_failure(request)))
    tab.goto(f"{_SITE.as_uri()}/{page}")
    tab.wait_for_load_state("load")
    yield tab
    tab.wait_for_timeout(100)
    context.close()
    assert not messages, f"{page}: {messages}"


@pytest.mark.parametrize("page", _PAGES)
def test_every_page_loads_without_a_message_and_fits_a_phone(browser: "Browser", page: str) -> None:
    with opened(browser, page, width=390) as tab:
        assert tab.title()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        for link in tab.evaluate("[...document.links].map(link => link.href).filter(link => link.startsWith('file:'))"):
            assert Path(link.removeprefix("file://").split("#")[0].split("?")[0]).exists(), f"{page} links to {link}"


def test_pages_take_nothing_from_a_network(browser: "Browser") -> None:
    with opened(browser, "results/tables/table_4.html") as tab:
        sources: list[str] = []
        tab.on("request", lambda request: sources.append(request.url))
        tab.reload()
        tab.wait_for_timeout(300)  # requests are told with a delay
        assert len(sources) > 5 and all(source.startswith(("file:", "data:")) for source in sources)


@pytest.mark.parametrize("name", committed_tables())
def test_a_table_is_drawn_and_filtered_and_sorted(browser: "Browser", name: str) -> None:
    results = read_table(name).shown
    with opened(browser, f"results/tables/{name}.html") as tab:
        assert tab.locator("#plots .main-svg").count() > 0
        rows = tab.locator("#numbers tbody tr:visible")
        assert rows.count() == len(results)
        word = results[0].row
        tab.fill("#filter", word)
        texts = rows.all_inner_texts()
        assert len(texts) > 0 and all(word in text.lower() for text in texts)
        assert len(texts) >= sum(result.row == word for result in results)
        tab.fill("#filter", "")
        tab.get_by_role("button", name="Ours").click()
        shown = {result.anchor: result.mean for result in results}
        means = [shown[row.get_attribute("id") or ""] for row in rows.all()]
        numbers = [mean for mean in means if mean is not None]
        assert numbers == sorted(numbers) and means[: len(numbers)] == numbers


def test_a_choice_of_a_metric_filters(browser: "Browser") -> None:
    with opened(browser, "results/tables/table_4.html") as tab:
        tab.select_option(".filters select", "AP")
        metrics = [text.split("\t")[1] for text in tab.locator("#numbers tbody tr:visible").all_inner_texts()]
        assert len(metrics) == 9 and set(metrics) == {"AP"}


def test_a_number_opens_its_record(browser: "Browser") -> None:
    table = read_table("table_4")
    record = table.runs["cora/dfa"][0].record
    with opened(browser, "results/tables/table_4.html") as tab:
        tab.locator("#cora-dfa-auc a").click()
        dialog = tab.locator("dialog#run")
        dialog.locator("h2").wait_for()
        text = dialog.inner_text()
        assert (
            "Table 4: cora/dfa" in text and "python -m benchmarks train -m task=cora_links model=gae rule=dfa" in text
        )
        assert dialog.locator("table.runs tbody tr").count() == 10
        assert dialog.locator(".curves .trace").count() == 10
        assert record["commit"] in text and record["device"] in text
        records = dialog.locator("details", has_text=f"record of seed {record['seed']}")
        records.first.locator("summary").click()
        assert str(record["metrics"]["test/auc"]) in records.first.inner_text()
        dialog.get_by_role("button", name="Close").click()
        assert not dialog.is_visible()


def test_a_link_to_a_number_opens_its_record(browser: "Browser") -> None:
    with opened(browser, "docs/is_dfa_any_good.html") as tab:
        tab.locator('a[href$="table_4.html#cora-dfa-auc"]').last.click()
        tab.locator("dialog#run h2").wait_for()
        assert "Table 4: cora/dfa" in tab.locator("dialog#run").inner_text()


def test_a_table_without_records_says_so(browser: "Browser") -> None:
    name = next(name for name in committed_tables() if not read_table(name).archive.runs)
    with opened(browser, f"results/tables/{name}.html") as tab:
        assert "Records not kept" in tab.locator("article").inner_text()
        tab.locator("#numbers tbody a").first.click()
        tab.locator("dialog#run h2").wait_for()
        assert "Records not kept" in tab.locator("dialog#run").inner_text()


def test_plots_follow_the_colours_of_the_page(browser: "Browser") -> None:
    with opened(browser, "results/rules.html") as tab:
        colour = "getComputedStyle(document.querySelector('#closed .xtick text')).fill"
        light = tab.evaluate(colour)
        tab.locator("label[title=Dark]:visible").click()
        tab.wait_for_function(f"{colour} !== '{light}'")


@pytest.mark.skipif(not list(FIGURES.glob("*.pictures.json")), reason="no figure with pictures is committed")
def test_pictures_lie_on_top_of_each_other(browser: "Browser") -> None:
    with opened(browser, "results/figures/index.html") as tab:
        place = tab.locator(".compare").first
        left, right = place.locator("img").all()
        boxes = [picture.bounding_box() for picture in (left, right)]
        assert boxes[0] == boxes[1] and left.get_attribute("src") != right.get_attribute("src")
        place.locator("input").fill("20")
        assert right.evaluate("picture => getComputedStyle(picture).clipPath") == "inset(0px 0px 0px 20%)"
        names = [place.locator("select").nth(number) for number in (1, 2)]
        names[1].select_option(names[0].input_value())
        assert left.get_attribute("src") == right.get_attribute("src")
        scenes = place.locator("select").first.locator("option").all_inner_texts()
        place.locator("select").first.select_option(scenes[-1])
        assert scenes[-1] in (left.get_attribute("alt") or "")


def test_the_search_finds_a_page_from_disk(browser: "Browser") -> None:
    with opened(browser, "index.html") as tab:
        tab.locator(".md-search__input").click()
        # Before its index is there, the search answers with an error.
        tab.locator(".md-search-result__meta", has_text="Type to start searching").wait_for()
        tab.locator(".md-search__input").press_sequentially("kolen")
        tab.locator(".md-search-result__link").first.wait_for()
        assert "Kolen" in tab.locator(".md-search-result__list").inner_text()


def test_every_committed_table_has_a_page() -> None:
    assert {path.stem for path in TABLES.glob("*.csv")} <= {Path(page).stem for page in _PAGES}

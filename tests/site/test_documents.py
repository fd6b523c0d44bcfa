"""Documents become pages whose links lead somewhere."""

from pathlib import Path

import pytest

from benchmarks.errors import ResultsError
from benchmarks.site.documents import adapted, documents, write_documents
from benchmarks.site.quotes import with_numbers
from benchmarks.site.results import read_table
from benchmarks.utils.paths import REPOSITORY

TABLE = "../results/tables/table_4.md"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for name, text in {
        "README.md": "[guide](docs/guide.md#start) [picture](results/figures/one.png) [hidden](.hidden.yaml)",
        "docs/guide.md": "[figures](../results/figures) [web](https://example.org) [here](#start) [gone](gone.md)",
        "results/figures/one.png": "pixels",
        "results/figures/two.png": "more",
        ".hidden.yaml": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_links_between_documents_stay_and_those_to_folders_lead_to_a_list(repository: Path, tmp_path: Path) -> None:
    write_documents(repository, tmp_path / "site")
    readme, guide = ((tmp_path / "site" / name).read_text() for name in ("README.md", "docs/guide.md"))
    assert readme == "[guide](docs/guide.md#start) [picture](results/figures/one.png) hidden"
    assert guide.startswith("[figures](../results/figures/index.md) [web](https://example.org) [here](#start) [gone]")
    assert (tmp_path / "site" / "results" / "figures" / "two.png").read_text() == "more"
    assert "[two.png](two.png)" in (tmp_path / "site" / "results" / "figures" / "index.md").read_text()


def test_every_document_of_the_repository_can_be_adapted() -> None:
    for document in documents(REPOSITORY):
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        assert len(adapted(text, document, REPOSITORY)) > 0.9 * len(text)


def test_numbers_in_documents_are_those_of_the_tables() -> None:
    """Mended by `python -m benchmarks site --numbers`."""
    for document in documents(REPOSITORY):
        text = (REPOSITORY / document).read_text(encoding="utf-8")
        assert with_numbers(text) == text, f"{document} quotes numbers that its tables do not have"


def test_quoted_numbers_are_written_anew() -> None:
    result = read_table("table_4").find("cora-dfa-auc")
    assert (
        with_numbers(f"[0.1]({TABLE}#cora-dfa-auc)") == f"[{result.mean:.3f} ± {result.std:.3f}]({TABLE}#cora-dfa-auc)"
    )
    assert with_numbers(f'[x]({TABLE}#cora-dfa-auc "paper")') == f'[0.900]({TABLE}#cora-dfa-auc "paper")'
    published = '(../benchmarks/tables/paper.yaml "table_5: dfa_micro, lr_schedule, perplexity")'
    assert with_numbers(f"[x]{published}") == f"[93.3]{published}"
    plain = f"[Table 4]({TABLE}) and [a heading]({TABLE})"
    assert with_numbers(plain) == plain


def test_the_best_direct_rule_is_found_and_linked() -> None:
    """Among the direct rules, by hand: neither bp, nor Kolen-Pollack and its like, nor what uses forward weights."""
    direct = ("dfa", "dkp", "fdfa", "grape", "graph_dfa", "drtp", "low_rank", "dfa_sign", "dfa_sparse")
    found = {r.row: r for r in read_table("table_6").results if (r.column, r.metric) == ("gcn", "closed")}
    best = max((found[row] for row in direct if row in found), key=lambda result: result.mean or 0.0)
    text = with_numbers('[x](../results/tables/table_6.md#dfa-gcn-closed "best direct rule")')
    assert text.startswith(f"[`{best.row}` {best.mean:.2f} ± ") and f"#{best.row}-gcn-closed " in text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"[x]({TABLE}#cora-dfa-psnr)", "no number 'cora-dfa-psnr'"),
        (f'[x]({TABLE}#cora-shallow-auc "paper")', "no number of the paper's"),
        (f'[x]({TABLE}#cora-dfa-auc "best direct rule")', "no direct rule"),
        ('[x](../benchmarks/tables/paper.yaml "table_5: bp, adam, perplexity")', "reports no number"),
    ],
)
def test_quotes_of_nothing_are_errors(text: str, reason: str) -> None:
    with pytest.raises(ResultsError, match=reason):
        with_numbers(text)

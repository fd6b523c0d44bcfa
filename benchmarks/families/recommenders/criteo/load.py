"""Loading of Criteo's log, or of its stand-in, through the cache of preprocessed logs."""

import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.errors import DataError
from benchmarks.families.recommenders.criteo.blocks import Source, TextSource
from benchmarks.families.recommenders.criteo.cache import open_cache, prepare, read_manifest
from benchmarks.families.recommenders.criteo.first_rows import check_first_rows
from benchmarks.families.recommenders.criteo.hugging_face import HuggingFaceSource
from benchmarks.families.recommenders.data import ClickLog, LoadedLog, random_split
from benchmarks.families.recommenders.published import CRITEO_FILES, CRITEO_SAMPLE, missing_criteo
from benchmarks.families.recommenders.stand_in import ClickModel, expected_auc, expected_log_loss, write_text_log
from benchmarks.utils.paths import cache_dir, writable

CRITEO_ROWS = 45_840_617


def load_criteo(
    data_dir: Path,
    *,
    hugging_face: str = "",
    min_count: int = 10,
    max_malformed: float = 0.001,
    download: bool = False,
) -> LoadedLog:
    """Load Criteo's log; its cache is built on first use.

    Args:
        data_dir: the log is expected in `<data_dir>/criteo`.
        hugging_face: data set on the Hugging Face hub, or a local folder, to read instead.
        min_count, max_malformed: see `count_values`.
        download: whether the hub may be used.

    Raises:
        DataError: the log is missing or malformed, see `cache.prepare`.
    """
    source = _criteo_source(data_dir, hugging_face, download)
    folder = prepare(source, _cache_root(data_dir / "criteo"), min_count, max_malformed)
    manifest = read_manifest(folder)
    notes: dict[str, float | str] = {
        "rows": manifest.rows,
        "malformed_rows": manifest.malformed,
        "malformed_share": manifest.malformed / (manifest.rows + manifest.malformed),
        "feature_values": sum(manifest.field_sizes),
    }
    whole = manifest.rows + manifest.malformed == CRITEO_ROWS
    name = "criteo" if whole else f"criteo ({manifest.rows + manifest.malformed} of {CRITEO_ROWS} rows)"
    return LoadedLog(open_cache(folder), name, {manifest.source: manifest.sha256}, notes)


def load_stand_in(rows: int, vocabulary: int, seed: int, split_seed: int = 42, min_count: int = 10) -> LoadedLog:
    """Generate a stand-in log, through the same text format and preprocessing as the real one.

    The notes hold the scores of the true probabilities on the test rows: in expectation over the labels (`bayes_auc`,
    `bayes_log_loss`), and for the labels as drawn (`bayes_auc_drawn`, `bayes_log_loss_drawn`), which a model can exceed
    by chance only.

    Args:
        rows: number of rows.
        vocabulary, seed: see `ClickModel`.
        split_seed: determines the test rows.
        min_count: see `count_values`.
    """
    with tempfile.TemporaryDirectory(prefix="click-log-") as temporary:
        path = Path(temporary) / "train.txt"
        truth = write_text_log(ClickModel(seed, vocabulary), rows, path)
        mapped = open_cache(prepare(TextSource(path), Path(temporary) / "cache", min_count, workers=1))
        groups = tuple((columns, np.array(array)) for columns, array in mapped.groups)
        log = ClickLog(groups, np.array(mapped.labels), mapped.field_sizes)
        del mapped
    test = random_split(rows, split_seed).test
    labels, best = log.labels[test].astype(np.float64), truth[test]
    notes: dict[str, float | str] = {
        "rows": rows,
        "bayes_auc": expected_auc(best),
        "bayes_log_loss": expected_log_loss(best),
    }
    if labels.min() != labels.max():
        notes["bayes_auc_drawn"] = expected_auc(labels, best)  # labels are probabilities of 0 and 1
        notes["bayes_log_loss_drawn"] = expected_log_loss(labels, best)
    return LoadedLog(log, notes=notes)


def _criteo_source(data_dir: Path, hugging_face: str, download: bool) -> Source:
    if hugging_face:
        if not Path(hugging_face).exists() and not download:
            raise DataError(f"'{hugging_face}' is not a local folder; set run.download=true to read it from the hub")
        return HuggingFaceSource(hugging_face)
    for name in (*CRITEO_FILES, CRITEO_SAMPLE):
        path = data_dir / "criteo" / name
        if path.is_file():
            check_first_rows(path)
            return TextSource(path)
    raise DataError(missing_criteo(data_dir))


def _cache_root(folder: Path) -> Path:
    """Return the folder of caches, which are large: beside the data if writable, unless $DFA_CACHE_DIR is set."""
    beside = not os.environ.get("DFA_CACHE_DIR") and folder.is_dir() and writable(folder)
    return folder / "cache" if beside else cache_dir() / "criteo"

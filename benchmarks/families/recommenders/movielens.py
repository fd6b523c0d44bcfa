"""MovieLens-100k and -1M as click logs: a rating above 3 is a click; the fields are user and item."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.families.recommenders.data import ClickLog, LoadedLog
from benchmarks.utils.download import fetch, sha256_of
from benchmarks.utils.files import atomic_path
from benchmarks.utils.paths import data_roots, first_writable
from benchmarks.utils.text import fetch_or, first_line

CLICK_ABOVE = 3
MOST_IDS = 10_000_000  # of a field; each becomes a row of the model's embedding
MOST_BYTES = 100_000_000  # of an unpacked file; the largest has a quarter of this
SEPARATORS = ("::", "\t", "|", ",")


@dataclass(frozen=True)
class _Release:
    folder: str
    file: str
    url: str
    sha256: str


RELEASES = {
    "100k": _Release(
        "ml-100k",
        "u.data",
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    ),
    "1m": _Release(
        "ml-1m",
        "ratings.dat",
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    ),
}


def load_movielens(release: str, data_dir: Path, download: bool = False) -> LoadedLog:
    """Load `ml-100k/u.data` or `ml-1m/ratings.dat`.

    Args:
        release: "100k" or "1m".
        data_dir: the file lies below it, or else in the same place in the cache folder.
        download: whether to fetch a missing file.

    Raises:
        DataError: the file is missing or malformed, or cannot be downloaded.
    """
    known = RELEASES[release]
    path = find_movielens(release, data_dir)
    if path is None:
        if not download:
            raise DataError(missing_movielens(release, data_dir))
        path = first_writable([root / known.folder for root in data_roots(data_dir)], known.folder) / known.file
        _download(known, path)
    log = read_ratings(path)
    notes: dict[str, float | str] = {"rows": len(log), "click_rate": round(float(log.labels.mean()), 4)}
    return LoadedLog(log, f"movielens_{release}", {known.file: sha256_of(path)}, notes)


def find_movielens(release: str, data_dir: Path) -> Path | None:
    """Return the file of the ratings, or None where there is none."""
    known = RELEASES[release]
    places = (root / known.folder / known.file for root in data_roots(data_dir))
    return next((path for path in places if path.is_file()), None)


def missing_movielens(release: str, data_dir: Path) -> str:
    """Return why the ratings are not available, or ""."""
    if find_movielens(release, data_dir) is not None:
        return ""
    known = RELEASES[release]
    wanted = data_dir / known.folder / known.file
    return f"MovieLens is not at {wanted}; {fetch_or(f'movielens_{release}', f'unpack {known.url} there')}"


def read_ratings(path: Path) -> ClickLog:
    """Read lines of user, item, rating and time.

    Columns are separated by tabs or "::" as published, or by "|" or commas after a header line as in some copies. Ids
    count from 1; a field has as many ids as its largest one.

    Raises:
        DataError: a line does not have this form.
    """
    import polars as pl  # a plan does not need it

    try:
        lines = pl.read_csv(path, has_header=False, separator="\x01", new_columns=["line"], quote_char=None)
        texts = lines.get_column("line").cast(pl.String)
        separator = next((known for known in SEPARATORS if known in (texts[0] or "")), SEPARATORS[0])
        if not (texts[0] or "")[:1].isdigit():
            texts = texts[1:]
        parts = texts.str.split(separator)
        if parts.list.len().ne(4).any():
            raise DataError(f"{path}: a line does not consist of user, item, rating and time")
        columns = [parts.list.get(number).cast(pl.Int64) for number in range(3)]
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path} is not a MovieLens rating file: {first_line(error)}") from None
    ids = pl.DataFrame([column.alias(str(number)) for number, column in enumerate(columns[:2])]).to_numpy() - 1
    if len(ids) == 0 or ids.min() < 0 or ids.max() >= MOST_IDS:
        raise DataError(f"{path}: no ratings, or ids that do not count from 1 to at most {MOST_IDS}")
    return ClickLog.from_ids(ids, (columns[2] > CLICK_ABOVE).to_numpy(), ids.max(axis=0) + 1)


def _download(release: _Release, path: Path) -> None:
    archive = path.parent / Path(release.url).name
    fetch([release.url], archive, release.sha256)
    unpack(archive, f"{release.folder}/{release.file}", path)


def unpack(archive: Path, member: str, target: Path) -> None:
    """Unpack one file of an archive.

    Raises:
        DataError: the archive is damaged, does not hold the file, or the file is larger than any rating file.
    """
    try:
        with zipfile.ZipFile(archive) as packed, packed.open(member) as stream:
            content = stream.read(MOST_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} does not hold {member}: {error}") from None
    if len(content) > MOST_BYTES:
        raise DataError(f"{archive}: {member} has more than {MOST_BYTES / 1e6:.0f} MB")
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)

"""Texts on disk, WikiText, an English Wikipedia or any folder of plain text, and the download of WikiText."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import DataError
from benchmarks.families.language.data import SPLITS
from benchmarks.utils.download import offline, sha256_of
from benchmarks.utils.files import atomic_path
from benchmarks.utils.paths import data_roots, first_writable
from benchmarks.utils.text import fetch_or

HUB = "Salesforce/wikitext"
PLAIN_TEXT = "plain_text"
_BOUNDS = {"train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0)}


@dataclass(frozen=True)
class Published:
    """A text with splits of its own.

    Attributes:
        folder: its folder below the data folder.
        file: name of a split's file, with `{split}` in the place of the split.
        on_hub: whether the Hugging Face hub has it.
    """

    folder: str
    file: str
    on_hub: bool = True


PUBLISHED = {
    "wikitext103": Published("wikitext-103", "wiki.{split}.tokens"),
    "wikitext2": Published("wikitext-2", "wiki.{split}.tokens"),
    "enwiki2015": Published("enwiki-2015", "{split}.txt", on_hub=False),
}
SOURCES = (*PUBLISHED, PLAIN_TEXT)


@dataclass(frozen=True)
class Text:
    """Files of a text.

    Attributes:
        name: name of the data set.
        files: split → its files in order; the same files for every split if `split_by_line`.
        split_by_line: whether the splits are the first 90 %, the next 5 % and the last 5 % of the lines.
    """

    name: str
    files: dict[str, tuple[Path, ...]]
    split_by_line: bool = False

    def lines(self, split: str) -> Iterator[str]:
        """Yield the lines of a split without their line ends.

        Raises:
            DataError: a file cannot be read or is not UTF-8.
        """
        if not self.split_by_line:
            return self._all_lines(split)
        lines = list(self._all_lines(split))
        first, last = (round(share * len(lines)) for share in _BOUNDS[split])
        return iter(lines[first:last])

    def checksums(self) -> dict[str, str]:
        """Return file name → sha256."""
        files = dict.fromkeys(file for split in SPLITS for file in self.files[split])
        return {file.name: sha256_of(file) for file in files}

    def _all_lines(self, split: str) -> Iterator[str]:
        for file in self.files[split]:
            try:
                # Only "\n" ends a line; WikiText has other Unicode line separators within lines.
                with file.open(encoding="utf-8", newline="\n") as stream:
                    for line in stream:
                        yield line.rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file} cannot be read as text: {error}") from None


def find_text(name: str, data_dir: Path, folder: str, download: bool) -> Text:
    """Find the files of a text, and download them if they are missing and `download` is set.

    Args:
        name: one of `SOURCES`.
        data_dir: folder of the data sets.
        folder: folder of a plain text, relative to `data_dir` or absolute.
        download: whether to fetch a missing text.

    Raises:
        DataError: files are missing or cannot be downloaded.
    """
    if name == PLAIN_TEXT:
        return _plain_text(data_dir / folder)
    for place in _places(name, data_dir):
        if not _missing(name, place):
            return Text(name, {split: (place / _file(name, split),) for split in SPLITS})
    if not (download and PUBLISHED[name].on_hub):
        raise DataError(missing_data(name, data_dir))
    return Text(name, {split: (path,) for split, path in _fetch(name, data_dir).items()})


def missing_data(name: str, data_dir: Path) -> str:
    """Return why the text of a task is not available, or ""; no file is read or fetched."""
    if name == PLAIN_TEXT:
        return ""  # its folder is an option, which says where it is
    wanted = _places(name, data_dir)[0]
    if any(not _missing(name, place) for place in _places(name, data_dir)):
        return ""
    missing = ", ".join(_missing(name, wanted))
    way = "place the files there"
    way = fetch_or(name, way, in_a_run=True) if PUBLISHED[name].on_hub else way
    return f"{PUBLISHED[name].folder} is not complete in {wanted}: missing {missing}; {way}"


def data_files(task: str, data_dir: Path, options: Mapping[str, Any]) -> list[Path]:
    """List the files that a task's real text is read from; empty if they are missing."""
    if task == PLAIN_TEXT:
        own = data_dir / str(options.get("folder", ""))
        texts = _plain_text(own).files if own.is_dir() else {}
        return sorted({file for files in texts.values() for file in files})
    places = [place for place in _places(task, data_dir) if not _missing(task, place)]
    return [place / _file(task, split) for place in places[:1] for split in SPLITS]


def _places(name: str, data_dir: Path) -> list[Path]:
    return [root / PUBLISHED[name].folder for root in data_roots(data_dir)]


def _file(name: str, split: str) -> str:
    return PUBLISHED[name].file.format(split=split)


def _missing(name: str, folder: Path) -> list[str]:
    return [_file(name, split) for split in SPLITS if not (folder / _file(name, split)).is_file()]


def _fetch(name: str, data_dir: Path) -> dict[str, Path]:
    """Download a text from the Hugging Face hub and write each split as a token file, one line per row."""
    if offline():
        raise DataError(f"{missing_data(name, data_dir)}; DFA_OFFLINE forbids the download")
    import datasets

    folder = first_writable(_places(name, data_dir), PUBLISHED[name].folder)
    written = {split: folder / _file(name, split) for split in SPLITS}
    try:
        splits = datasets.load_dataset(HUB, f"{PUBLISHED[name].folder}-v1")
        for split, target in written.items():
            with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
                for row in splits["validation" if split == "valid" else split]:
                    stream.write(row["text"].rstrip("\n") + "\n")
    except OSError as error:
        raise DataError(f"cannot fetch {HUB} into {folder}: {error}") from error
    except Exception as error:  # hub, network and format errors share no base class
        raise DataError(
            f"Hugging Face data set '{HUB}' ({PUBLISHED[name].folder}-v1) cannot be downloaded: {error}"
        ) from error
    return written


def _plain_text(folder: Path) -> Text:
    """Find files named after their split (train.txt, my.valid.txt), or else take all `*.txt` as one text."""
    files = sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    named = {split: tuple(file for file in files if split in file.name.lower().split(".")) for split in SPLITS}
    if all(named.values()):
        return Text(PLAIN_TEXT, named)
    texts = tuple(file for file in files if file.suffix == ".txt")
    if any(named.values()) or not texts:
        needed = ", ".join(f"{split}.txt" for split in SPLITS if not named[split])
        raise DataError(f"no text in {folder}: put {needed} there, or *.txt files not named after a split")
    return Text(PLAIN_TEXT, dict.fromkeys(SPLITS, texts), split_by_line=True)

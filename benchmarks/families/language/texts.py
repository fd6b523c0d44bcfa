"""Texts on disk: WikiText as token files, or any folder of plain text; found, or fetched when asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.families.language.data import SPLITS
from benchmarks.utils.download import offline, sha256_of
from benchmarks.utils.files import atomic_path
from benchmarks.utils.paths import cache_dir, writable

HUB = "Salesforce/wikitext"
FOLDERS = {"wikitext103": "wikitext-103", "wikitext2": "wikitext-2"}
PLAIN_TEXT = "plain_text"
SOURCES = (*FOLDERS, PLAIN_TEXT)
_SHARES = {"train": 0.9, "valid": 0.95, "test": 1.0}


@dataclass(frozen=True)
class Text:
    """The files of a text.

    Attributes:
        name: of the data set.
        files: split → its files in order; the same files for every split where the text has no splits of its own.
        split_by_line: whether the first 90 % of the lines are for training and 5 % each for validation and test.
    """

    name: str
    files: dict[str, tuple[Path, ...]]
    split_by_line: bool = False

    def lines(self, split: str) -> Iterator[str]:
        """Lines of a split without their end.

        Raises:
            DataError: a file cannot be read, or is not UTF-8.
        """
        if not self.split_by_line:
            return self._all_lines(split)
        lines = list(self._all_lines(split))
        bounds = dict(zip(SPLITS, zip((0.0, *_SHARES.values()), _SHARES.values(), strict=False), strict=True))
        first, last = (round(share * len(lines)) for share in bounds[split])
        return iter(lines[first:last])

    def checksums(self) -> dict[str, str]:
        """File name → sha256."""
        files = dict.fromkeys(file for split in SPLITS for file in self.files[split])
        return {file.name: sha256_of(file) for file in files}

    def _all_lines(self, split: str) -> Iterator[str]:
        for file in self.files[split]:
            try:
                # Other characters that Unicode takes for the end of a line occur within lines.
                with file.open(encoding="utf-8", newline="\n") as stream:
                    for line in stream:
                        yield line.rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file} cannot be read as text: {error}") from None


def find_text(name: str, data_dir: Path, folder: str, download: bool) -> Text:
    """The text called `name`, fetched if it is not here and `download` says so.

    Raises:
        DataError: files are missing, or cannot be fetched.
    """
    if name == PLAIN_TEXT:
        return _plain_text(data_dir / folder)
    for place in _places(name, data_dir):
        if not _missing(place):
            return Text(name, {split: (place / _file(split),) for split in SPLITS})
    if not download:
        raise DataError(missing_data(name, data_dir))
    return Text(name, {split: (path,) for split, path in _fetch(name, data_dir).items()})


def missing_data(name: str, data_dir: Path) -> str:
    """Why the text of a task is not at hand, in one line; "" if it is."""
    if name not in FOLDERS:
        return ""  # plain text, whose folder is an option, or a task from elsewhere
    wanted = _places(name, data_dir)[0]
    if any(not _missing(place) for place in _places(name, data_dir)):
        return ""
    return (
        f"{FOLDERS[name]} is not complete in {wanted}: missing {', '.join(_missing(wanted))};"
        f" run `python -m benchmarks fetch {name}` (or set run.download=true), or place the files there"
    )


def _places(name: str, data_dir: Path) -> list[Path]:
    return [root / FOLDERS[name] for root in (data_dir, cache_dir())]


def _file(split: str) -> str:
    return f"wiki.{split}.tokens"


def _missing(folder: Path) -> list[str]:
    return [_file(split) for split in SPLITS if not (folder / _file(split)).is_file()]


def _fetch(name: str, data_dir: Path) -> dict[str, Path]:
    """Write the splits of the hub's copy as token files, one line for each of its rows."""
    if offline():
        raise DataError(f"{missing_data(name, data_dir)}; DFA_OFFLINE forbids to fetch them")
    import datasets

    places = _places(name, data_dir)
    folder = next((place for place in places if writable(place)), None)
    if folder is None:
        tried = " nor ".join(map(str, places))
        raise DataError(f"{FOLDERS[name]} can be written neither to {tried}; DFA_CACHE_DIR chooses another folder")
    written = {split: folder / _file(split) for split in SPLITS}
    try:
        splits = datasets.load_dataset(HUB, f"{FOLDERS[name]}-v1")
        for split, target in written.items():
            with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
                for row in splits["validation" if split == "valid" else split]:
                    stream.write(row["text"].rstrip("\n") + "\n")
    except OSError as error:
        raise DataError(f"cannot fetch {HUB} into {folder}: {error}") from error
    except Exception as error:  # hub, network and format errors share no base class
        raise DataError(f"Hugging Face data set '{HUB}' ({FOLDERS[name]}-v1) cannot be had: {error}") from error
    return written


def _plain_text(folder: Path) -> Text:
    """Files named after their split (train.txt, my.valid.txt), or else all `*.txt` as one text."""
    files = sorted(path for path in folder.glob("*") if path.is_file() and not path.name.startswith("."))
    named = {split: tuple(file for file in files if split in file.name.lower().split(".")) for split in SPLITS}
    if all(named.values()):
        return Text(PLAIN_TEXT, named)
    texts = tuple(file for file in files if file.suffix == ".txt")
    if any(named.values()) or not texts:
        needed = ", ".join(f"{split}.txt" for split in SPLITS if not named[split])
        raise DataError(f"no text in {folder}: it has to hold {needed}, or *.txt files not named after a split")
    return Text(PLAIN_TEXT, dict.fromkeys(SPLITS, texts), split_by_line=True)

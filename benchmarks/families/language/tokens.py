"""Byte-pair encoding of a text, trained on its training split, and the cache of its token ids."""

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.language.data import SPLITS, Corpus, Ids
from benchmarks.families.language.texts import Text
from benchmarks.task import DataInfo
from benchmarks.utils.files import unfinished_folder, write_text
from benchmarks.utils.paths import cache_dir

VERSION = 1
LINE_END = "\n"
LINE_END_ID = 0
_LINES_AT_ONCE = 4096


def tokenised(text: Text, vocabulary: int, lowercase: bool = True, cache: str = "") -> Corpus:
    """Encode a text as token ids, or take them from the cache.

    Whitespace-separated words are encoded independently; every line, also an empty one, ends with a token of its own.
    The smallest units are bytes, so there are no unknown tokens.

    Args:
        text: text to encode.
        vocabulary: greatest number of tokens: the end of a line, 256 bytes, and merges learned on the training split.
        lowercase: whether to lower-case the text first.
        cache: folder of the cache; "" for $DFA_CACHE_DIR or the user's cache folder. The name of the entry derives from
            the checksums of the files and the options; an entry appears complete or not at all.

    Raises:
        ConfigError: `vocabulary` is smaller than the number of bytes and the end of a line.
        DataError: the text is unreadable or empty, or the cache is damaged or cannot be written.
    """
    smallest = len(pre_tokenizers.ByteLevel.alphabet()) + 1
    if vocabulary < smallest:
        raise ConfigError(f"task option vocabulary must be at least {smallest}, got {vocabulary}")
    try:
        checksums = text.checksums()
        options = {"vocabulary": vocabulary, "lowercase": lowercase, "version": VERSION}
        root = (Path(cache) if cache else cache_dir()) / "language"
        folder = root / _entry_name(text, checksums, options)
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            if not folder.is_dir():
                _build(text, folder, vocabulary, lowercase)
    except OSError as error:
        raise DataError(f"{text.name}: {error.filename or 'the cache'}: {error.strerror or error}") from error
    return _open(text, folder, checksums, lowercase)


def normalise(line: str, lowercase: bool) -> str:
    """Return the words of a line, separated by one space."""
    return " ".join((line.lower() if lowercase else line).split())


def train_encoding(lines: Iterator[str], vocabulary: int) -> Tokenizer:
    """Train a byte-pair encoding on normalised lines; merges do not cross words."""
    tokenizer = Tokenizer(models.BPE())
    split_words = pre_tokenizers.WhitespaceSplit()
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split_words, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[LINE_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, lines: Sequence[str]) -> list[int]:
    """Return the ids of normalised lines, each followed by the end of a line."""
    encoded = tokenizer.encode_batch_fast(list(lines))
    return [token for line in encoded for token in (*line.ids, LINE_END_ID)]


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of token ids, the inverse of `encode` on normalised lines."""
    lines: list[list[int]] = [[]]
    for token in ids:
        lines.append([]) if token == LINE_END_ID else lines[-1].append(token)
    return LINE_END.join(tokenizer.decode(line).removeprefix(" ") for line in lines)


def _build(text: Text, folder: Path, vocabulary: int, lowercase: bool) -> None:
    with unfinished_folder(folder.parent) as building:
        tokenizer = train_encoding((normalise(line, lowercase) for line in text.lines("train")), vocabulary)
        tokenizer.save(str(building / "tokenizer.json"))
        manifest: dict[str, Any] = {"vocabulary": tokenizer.get_vocab_size(), "words": {}, "tokens": {}}
        for split in SPLITS:
            lines = (normalise(line, lowercase) for line in text.lines(split))
            ids, manifest["words"][split] = _encode_all(tokenizer, lines)
            if len(ids) == 0:
                raise DataError(f"the {split} split of {text.name} has no text")
            manifest["tokens"][split] = len(ids)
            np.save(building / f"{split}.npy", ids)
        write_text(building / "manifest.json", json.dumps(manifest, indent=1) + "\n")
        building.rename(folder)


def _encode_all(tokenizer: Tokenizer, lines: Iterator[str]) -> tuple[Ids, int]:
    """Return the ids of normalised lines in the smallest unsigned type that holds them, and the number of words."""
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32
    blocks, words = [np.empty(0, dtype)], 0
    while block := list(islice(lines, _LINES_AT_ONCE)):
        blocks.append(np.array(encode(tokenizer, block), dtype))
        words += sum(len(line.split()) + 1 for line in block)
    return np.concatenate(blocks), words


def _open(text: Text, folder: Path, checksums: dict[str, str], lowercase: bool) -> Corpus:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids: dict[str, Ids] = {split: np.load(folder / f"{split}.npy", mmap_mode="r") for split in SPLITS}
        counts = {split: len(array) for split, array in ids.items()}
        words = {split: int(manifest["words"][split]) for split in SPLITS}
        fits = counts == manifest["tokens"] and tokenizer.get_vocab_size() == manifest["vocabulary"]
    except Exception as error:  # tokenizers raises plain exceptions
        raise DataError(f"the cache {folder} is damaged ({error}); delete it to rebuild it") from None
    if not fits:
        raise DataError(f"the cache {folder} does not match its manifest; delete it to rebuild it")
    notes: dict[str, float | str] = {"vocabulary": float(manifest["vocabulary"])}
    for split in SPLITS:
        notes[f"{split}_tokens_per_word"] = counts[split] / words[split]
    return Corpus(
        info=DataInfo(text.name, "real", checksums, notes),
        ids=ids,
        words=words,
        vocabulary=manifest["vocabulary"],
        decode=lambda tokens: decode(tokenizer, tokens),
        encode=lambda line: encode(tokenizer, [normalise(line, lowercase)])[:-1],
    )


def _entry_name(text: Text, checksums: dict[str, str], options: dict[str, Any]) -> str:
    content = {"name": text.name, "files": checksums, **options}
    return "bpe-" + sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

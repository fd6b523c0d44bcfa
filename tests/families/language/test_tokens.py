"""Byte-pair encoding against a plain implementation, and its cache."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.language import tokens as tokens_module
from benchmarks.families.language.texts import Text, find_text
from benchmarks.families.language.tokens import LINE_END_ID, decode, encode, normalise, tokenised, train_encoding
from tests.families.language.conftest import LINES

_NORMALISED = [normalise(line, True) for line in LINES]


def _as_letters() -> dict[int, str]:
    """Return the printable character of each byte in a byte-level encoding (Radford et al., 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _letters(word: str) -> tuple[str, ...]:
    table = _as_letters()
    return tuple(table[byte] for byte in f" {word}".encode())


def _merge(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] = merged[-1] + part
        else:
            merged.append(part)
    return tuple(merged)


def _merges(folder: Path) -> tuple[list[tuple[str, str]], dict[str, int]]:
    content = json.loads((folder / "tokenizer.json").read_text())["model"]
    return [tuple(pair) for pair in content["merges"]], content["vocab"]


def test_tokens_are_those_of_a_plain_implementation(tmp_path: Path) -> None:
    """Every merge learned is a most frequent pair at its turn, and encoding applies them in that order."""
    tokenizer = train_encoding(iter(_NORMALISED * 5), 300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    merges, numbers = _merges(tmp_path)
    assert len(numbers) == 300 and len(merges) == 300 - 257
    words = Counter(_letters(word) for line in _NORMALISED for word in line.split())
    for pair in merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, count in words.items():
            for found in itertools.pairwise(parts):
                pairs[found] += count
        assert pairs[pair] == max(pairs.values())
        merged: Counter[tuple[str, ...]] = Counter()
        for parts, count in words.items():
            merged[_merge(parts, pair)] += count
        words = merged
    unseen = "many fieldlanes über the crossing"
    for line in (*_NORMALISED, unseen):
        expected = []
        for word in line.split():
            parts = _letters(word)
            for pair in merges:
                parts = _merge(parts, pair)
            expected += [numbers[part] for part in parts]
        assert encode(tokenizer, [line]) == [*expected, LINE_END_ID]


def test_decoding_gives_the_normalised_text_back() -> None:
    tokenizer = train_encoding(iter(_NORMALISED), 280)
    lines = [*_NORMALISED, "", "日本 ünï 🦆 <unk> @-@"]
    assert decode(tokenizer, encode(tokenizer, lines)) == "\n".join(lines) + "\n"
    assert normalise("  The\tOLD  lane ", True) == "the old lane" and normalise("The ", False) == "The"


def test_a_corpus_holds_every_split_and_counts_words(text_folder: Path) -> None:
    text = find_text("wikitext2", text_folder, "", False)
    corpus = tokenised(text, 300, cache=str(text_folder))
    words = sum(len(line.split()) + 1 for line in LINES)
    assert corpus.words == {"train": 20 * words, "valid": 4 * words, "test": 3 * words}
    assert corpus.vocabulary == 300 and corpus.ids["train"].dtype == np.uint16
    assert isinstance(corpus.ids["train"], np.memmap)
    assert corpus.decode(corpus.ids["valid"].tolist()) == "\n".join(_NORMALISED * 4) + "\n"
    assert (corpus.ids["valid"] == LINE_END_ID).sum() == 4 * len(LINES)
    assert corpus.info.kind == "real" and set(corpus.info.checksums) == {
        f"wiki.{split}.tokens" for split in ("train", "valid", "test")
    }
    assert corpus.encode("Old LANES ") == corpus.encode("old") + corpus.encode("lanes")


def test_it_is_encoded_once_for_each_text_and_options(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []
    genuine = tokens_module._build

    def build(text: Text, folder: Path, vocabulary: int, lowercase: bool) -> None:
        built.append(folder)
        genuine(text, folder, vocabulary, lowercase)

    monkeypatch.setattr(tokens_module, "_build", build)
    text = find_text("wikitext2", text_folder, "", False)
    for _ in range(2):
        tokenised(text, 300, cache=str(text_folder))
    assert len(built) == 1
    tokenised(text, 290, cache=str(text_folder))
    cased = tokenised(text, 300, lowercase=False, cache=str(text_folder))
    assert cased.decode(cased.ids["valid"][:200].tolist()).startswith("= The lane =")
    (text_folder / "wikitext-2" / "wiki.valid.tokens").write_text("another\n")
    changed = tokenised(text, 300, cache=str(text_folder))
    assert changed.decode(changed.ids["valid"].tolist()) == "another\n"
    assert len(set(built)) == 4


def test_a_build_that_fails_or_is_killed_leaves_nothing_to_trust(text_folder: Path) -> None:
    text = find_text("wikitext2", text_folder, "", False)
    left = text_folder / "language" / ".building-dead"
    left.mkdir(parents=True)
    (text_folder / "wikitext-2" / "wiki.test.tokens").write_bytes(b"\xff")
    with pytest.raises(DataError, match="cannot be read as text"):
        tokenised(text, 300, cache=str(text_folder))
    (text_folder / "wikitext-2" / "wiki.test.tokens").write_bytes(b"")
    with pytest.raises(DataError, match="the test split of wikitext2 has no text"):
        tokenised(text, 300, cache=str(text_folder))
    assert [path.name for path in (text_folder / "language").iterdir()] == [".lock"]


def test_a_damaged_cache_is_told(text_folder: Path) -> None:
    text = find_text("wikitext2", text_folder, "", False)
    tokenised(text, 300, cache=str(text_folder))
    (folder,) = (text_folder / "language").glob("bpe-*")
    np.save(folder / "valid.npy", np.zeros(3, np.uint16))
    with pytest.raises(DataError, match="does not match its manifest; delete it"):
        tokenised(text, 300, cache=str(text_folder))
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        tokenised(text, 300, cache=str(text_folder))


def test_what_cannot_be_encoded_is_refused(text_folder: Path) -> None:
    text = find_text("wikitext2", text_folder, "", False)
    with pytest.raises(ConfigError, match="vocabulary must be at least 257, got 100"):
        tokenised(text, 100, cache=str(text_folder))
    (text_folder / "file").write_text("")
    with pytest.raises(DataError, match="Not a directory"):
        tokenised(text, 300, cache=str(text_folder / "file"))

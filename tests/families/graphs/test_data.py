"""Finding, verifying and parsing Planetoid files; the real ones where DFA_DATA_DIR holds them."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch

from benchmarks.errors import DataError
from benchmarks.families.graphs import data as planetoid
from benchmarks.families.graphs.published import CHECKSUMS, FOLDERS, raw_files

DATA_DIR = Path(os.environ.get("DFA_DATA_DIR", ""))
PRESENT = "DFA_DATA_DIR" in os.environ and (DATA_DIR / "planetoid" / "Cora" / "raw").is_dir()
needs_data = pytest.mark.skipif(not PRESENT, reason="DFA_DATA_DIR does not hold the Planetoid files")


class Bomb:
    """Object whose unpickling creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))


def fill(folder: Path, name: str, content: bytes) -> None:
    folder.mkdir(parents=True)
    for file in raw_files(name):
        (folder / file).write_bytes(content)


def test_missing_files_are_named_with_the_folder_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        planetoid.load_planetoid("pubmed", tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "planetoid" / "PubMed" / "raw") in message
    assert "ind.pubmed.test.index" in message and "python -m benchmarks fetch pubmed" in message
    assert "\n" not in message


def test_altered_file_is_never_unpickled(tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    fill(tmp_path / "planetoid" / "Cora" / "raw", "cora", bomb)
    with pytest.raises(DataError) as caught:
        planetoid.load_planetoid("cora", tmp_path)
    assert not (tmp_path / "exploded").exists()
    assert hashlib.sha256(bomb).hexdigest() in str(caught.value)
    assert CHECKSUMS["cora"]["x"] in str(caught.value)


def test_every_data_set_has_eight_distinct_checksums() -> None:
    everything = [checksum for name in FOLDERS for checksum in raw_files(name).values()]
    assert len(everything) == len(set(everything)) == 24
    assert all(len(checksum) == 64 and int(checksum, 16) >= 0 for checksum in everything)


def test_offline_refuses_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_OFFLINE", "1")
    with pytest.raises(DataError, match="DFA_OFFLINE"):
        planetoid.load_planetoid("cora", tmp_path, download=True)
    assert not list((tmp_path / "planetoid").rglob("ind.*"))


@needs_data
def test_one_flipped_byte_in_a_real_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "planetoid" / "Cora" / "raw"
    folder.mkdir(parents=True)
    for file in raw_files("cora"):
        (folder / file).write_bytes((DATA_DIR / "planetoid" / "Cora" / "raw" / file).read_bytes())
    victim = folder / "ind.cora.graph"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"ind\.cora\.graph is truncated or altered"):
        planetoid.load_planetoid("cora", tmp_path)


@needs_data
@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features", "classes"),
    [("cora", 2708, 10556, 1433, 7), ("citeseer", 3327, 9104, 3703, 6)],
)
def test_real_graph_has_the_published_sizes(name: str, nodes: int, edges: int, features: int, classes: int) -> None:
    data, checksums = planetoid.load_planetoid(name, DATA_DIR)
    assert len(checksums) == 8
    assert (data.num_nodes, data.num_edges, data.num_features) == (nodes, edges, features)
    split = planetoid.public_split(data)
    assert [len(split[part]) for part in ("train", "valid", "test")] == [20 * classes, 500, 1000]
    assert torch.bincount(data.y[split["train"]]).tolist() == [20] * classes


@needs_data
def test_features_and_degrees_of_cora() -> None:
    data, _ = planetoid.load_planetoid("cora", DATA_DIR)
    raw, normalised = planetoid.to_graph(data, normalise=False), planetoid.to_graph(data, normalise=True)
    assert raw.x.values.unique().tolist() == [1.0]
    torch.testing.assert_close(normalised.x.to_dense().sum(1), torch.ones(2708))
    degree = torch.zeros(2708)
    for target in data.edge_index[1].tolist():
        degree[target] += 1
    assert raw.edge_attr is not None
    torch.testing.assert_close(raw.edge_attr[:, 0], degree[data.edge_index[1]] / degree.max())

"""Planetoid citation graphs (Yang et al., 2016): download, verification and parsing of the raw files.

The raw files are pickles, and unpickling runs code, so a file is opened only if its sha256 is the one listed here.
PyTorch Geometric parses them in memory, so the data folder may be read-only.
"""

from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.io import read_planetoid_data
from torch_geometric.transforms import NormalizeFeatures, TargetIndegree

from benchmarks.errors import DataError
from benchmarks.families.graphs.graph import Graph
from benchmarks.families.graphs.published import FOLDERS, find_planetoid, planetoid_folders, raw_files
from benchmarks.families.graphs.sparse import SparseMatrix
from benchmarks.utils.download import fetch, sha256_of
from benchmarks.utils.paths import first_writable
from benchmarks.utils.text import fetch_or

MIRRORS = (
    "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data/{file}",
    "https://raw.githubusercontent.com/tkipf/gcn/master/gcn/data/{file}",
)


def load_planetoid(name: str, data_dir: Path, download: bool = False) -> tuple[Data, dict[str, str]]:
    """Load a data set with raw features and the public split.

    Args:
        name: "cora", "citeseer" or "pubmed".
        data_dir: the files lie in `<data_dir>/planetoid/<Name>/raw`, or else in the same place in the cache folder.
        download: whether to fetch missing files.

    Returns:
        The graph as PyG's `Data` (x, edge_index, y, train_mask, val_mask, test_mask), and file name → sha256.

    Raises:
        DataError: files are missing, altered (they are not opened then), or cannot be downloaded.
    """
    files = raw_files(name)
    folder = find_planetoid(name, data_dir) or _obtain(name, data_dir, download)
    for file, expected in files.items():
        found = sha256_of(folder / file)
        if found != expected:
            raise DataError(
                f"{folder / file} is truncated or altered (sha256 {found}, expected {expected}) and was not opened;"
                f" delete it and run `python -m benchmarks fetch {name}`"
            )
    return read_planetoid_data(str(folder), name), files


def to_graph(data: Data, normalise: bool) -> Graph:
    """Convert PyG's `Data` to a `Graph`.

    Args:
        data: graph with x, y and edge_index.
        normalise: whether to scale every row of features to sum 1.

    Returns:
        The graph; each edge has as pseudo-coordinate the in-degree of its target over the greatest in-degree.
    """
    data = TargetIndegree()(data)
    if normalise:
        data = NormalizeFeatures()(data)
    return Graph(SparseMatrix.from_dense(data.x), data.y, data.edge_index, data.edge_attr)


def public_split(data: Data) -> dict[str, torch.Tensor]:
    """Return the node indices (n,) of "train", "valid" and "test" in the public split."""
    masks = {"train": data.train_mask, "valid": data.val_mask, "test": data.test_mask}
    return {split: mask.nonzero().flatten() for split, mask in masks.items()}


def _obtain(name: str, data_dir: Path, download: bool) -> Path:
    places = planetoid_folders(name, data_dir)
    if not download:
        wanted = places[0]
        missing = [file for file in raw_files(name) if not (wanted / file).is_file()]
        raise DataError(
            f"{FOLDERS[name]} is not complete in {wanted}: missing {', '.join(missing)};"
            f" {fetch_or(name, 'place the files there', in_a_run=True)}"
        )
    folder = first_writable(places, FOLDERS[name])
    for file, checksum in raw_files(name).items():
        if not (folder / file).is_file():
            fetch([mirror.format(file=file) for mirror in MIRRORS], folder / file, checksum)
    return folder

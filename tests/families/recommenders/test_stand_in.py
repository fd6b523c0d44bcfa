"""The synthetic log: its distribution, its best possible scores, its text."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import ConfigError
from benchmarks.families.recommenders.criteo.load import load_stand_in
from benchmarks.families.recommenders.stand_in import (
    INTEGERS,
    TRIPLES,
    ClickModel,
    expected_auc,
    expected_log_loss,
    write_text_log,
)


def test_expected_auc_equals_the_sum_over_all_pairs() -> None:
    draw = np.random.default_rng(0)
    p = np.round(draw.random(60), 1)  # with ties
    s = np.round(draw.random(60), 1)
    for score in (p, s):
        wins = total = 0.0
        for i in range(60):
            for j in range(60):
                if i != j:
                    weight = p[i] * (1 - p[j])
                    total += weight
                    wins += weight * ((score[i] > score[j]) + 0.5 * (score[i] == score[j]))
        assert math.isclose(expected_auc(p, score), wins / total, rel_tol=1e-10)


def test_expected_scores_are_the_means_over_drawn_labels() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    draw = np.random.default_rng(1)
    p = draw.random(400)
    drawn = [(draw.random(400) < p).astype(int) for _ in range(300)]
    assert abs(np.mean([roc_auc_score(y, p) for y in drawn]) - expected_auc(p)) < 0.004
    assert abs(np.mean([log_loss(y, p) for y in drawn]) - expected_log_loss(p)) < 0.006


def test_expected_scores_of_certain_labels_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    draw = np.random.default_rng(3)
    labels, predicted = draw.integers(2, size=400).astype(float), draw.random(400).round(2).clip(0.01, 0.99)
    assert math.isclose(expected_auc(labels, predicted), roc_auc_score(labels, predicted), rel_tol=1e-12)
    assert math.isclose(expected_log_loss(labels, predicted), log_loss(labels, predicted), rel_tol=1e-12)


def test_log_loss_of_certainty_and_of_a_coin() -> None:
    assert expected_log_loss(np.array([0.0, 1.0])) < 1e-12
    assert math.isclose(expected_log_loss(np.full(3, 0.5)), math.log(2))


def test_no_other_ranking_beats_the_true_probability() -> None:
    draw = np.random.default_rng(2)
    p = draw.random(500)
    assert all(expected_auc(p, p + draw.normal(0, s, 500)) < expected_auc(p) for s in (0.01, 0.1, 1))


def test_probabilities_are_those_of_the_stated_formula() -> None:
    model = ClickModel(4, vocabulary=50)
    rows = model.draw(200)
    for n in range(200):
        z = []
        for f in range(INTEGERS):
            v = int(rows.integers[n, f])
            z.append(min(max((math.floor(math.log(v) ** 2) - 8) / 8, -1), 2) if v > 2 else (v - 2) / 3)
        z += [float(model.factors[f][rows.categories[n, f]]) for f in range(26)]
        z = [0.0 if empty else value for value, empty in zip(z, rows.missing[n], strict=True)]
        logit = model.bias + sum(a * value for a, value in zip(model.first, z, strict=True))
        for i, j, k in TRIPLES:
            logit += model.second * (z[i] * z[j] + z[j] * z[k] + z[i] * z[k]) + model.third * z[i] * z[j] * z[k]
        assert math.isclose(rows.probability[n], 1 / (1 + math.exp(-logit)), rel_tol=1e-9)


def test_rows_are_reproducible_and_labels_follow_the_probabilities() -> None:
    model = ClickModel(0, vocabulary=100)
    rows = model.draw(50_000)
    again = ClickModel(0, vocabulary=100).draw(50_000)
    assert np.array_equal(rows.labels, again.labels) and np.array_equal(rows.categories, again.categories)
    assert abs(rows.labels.mean() - 0.25) < 0.01
    for low in np.arange(0, 1, 0.1):
        inside = (rows.probability >= low) & (rows.probability < low + 0.1)
        spread = 0.5 / math.sqrt(max(1, inside.sum()))  # at most, of a mean of labels
        assert abs(rows.labels[inside].mean() - rows.probability[inside].mean()) < 4 * spread


def test_factors_of_common_values_have_no_mean_and_unit_variance() -> None:
    """The third-order term is orthogonal to sums of pairwise terms."""
    model = ClickModel(7, vocabulary=300)
    for factors, steps in zip(model.factors, model.cumulative, strict=True):
        shares = np.diff(steps, prepend=0)
        common = shares[:100].sum()
        assert math.isclose(shares @ factors, 0, abs_tol=1e-12)
        assert math.isclose(shares @ factors**2 / common, 1, rel_tol=1e-9)
        assert not factors[100:].any()


def test_text_has_criteos_format(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    truth = write_text_log(ClickModel(0, vocabulary=300), 700, path, chunk=256)
    lines = [line.split("\t") for line in path.read_text().split("\n")[:-1]]
    assert len(lines) == len(truth) == 700
    assert {len(cells) for cells in lines} == {40}
    assert {cells[0] for cells in lines} == {"0", "1"}
    assert all(cell == "" or int(cell) >= -1 for cells in lines for cell in cells[1:14])
    assert all(cell == "" or (len(cell) == 8 and int(cell, 16) >= 0) for cells in lines for cell in cells[14:])
    assert any(cell == "" for cells in lines for cell in cells[1:14])
    assert any(cell == "" for cells in lines for cell in cells[14:])


def test_text_holds_the_rows_drawn(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    model = ClickModel(5, vocabulary=300)
    write_text_log(model, 300, path)
    rows = model.draw(300, stream=0)
    lines = [line.split("\t") for line in path.read_text().split("\n")[:-1]]
    for field in range(26):
        names: dict[str, np.int64] = {}
        for n, cells in enumerate(lines):
            cell = cells[14 + field]
            assert (cell == "") == rows.missing[n, 13 + field]
            if cell:
                assert names.setdefault(cell, rows.categories[n, field]) == rows.categories[n, field]
        assert len(set(names.values())) == len(names)
    for n, cells in enumerate(lines):
        expected = ["" if rows.missing[n, f] else str(rows.integers[n, f]) for f in range(13)]
        assert cells[1:14] == expected and cells[0] == str(rows.labels[n])


def test_loaded_stand_in_keeps_its_rows_in_order() -> None:
    loaded = load_stand_in(2000, 100, 0)
    rows = ClickModel(0, 100).draw(2000)
    assert np.array_equal(loaded.log.labels, rows.labels)
    bayes = loaded.notes["bayes_auc"]
    assert isinstance(bayes, float)
    assert not loaded.name and 0.5 < bayes < 1


@pytest.mark.parametrize("options", [{"vocabulary": 3}, {"click_rate": 0.0}])
def test_impossible_laws_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ClickModel(0, **options)

"""Models against brute-force NumPy, and against the `torchfm` package where it is installed."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.errors import ConfigError
from benchmarks.families.recommenders.layers import (
    CrossLayer,
    CrossNetwork,
    FieldTable,
    Logarithmic,
    Mlp,
    PairwiseProducts,
)
from benchmarks.families.recommenders.models import (
    AdaptiveFactorization,
    AutoInt,
    DeepCrossNetwork,
    DeepFM,
    FactorizationMachine,
)

SIZES = (3, 7, 2, 11)
MODELS = [
    (FactorizationMachine, {"embedding_dim": 5}),
    (DeepFM, {"embedding_dim": 5, "hidden": (6, 4), "dropout": 0.2}),
    (DeepCrossNetwork, {"embedding_dim": 5, "cross_layers": 3, "hidden": (6, 4)}),
    (AutoInt, {"embedding_dim": 5, "attention_dim": 8, "attention_layers": 3, "hidden": (6, 4)}),
    (AdaptiveFactorization, {"embedding_dim": 5, "neurons": 9, "hidden": (6, 4)}),
]


@pytest.fixture
def ids() -> torch.Tensor:
    draw = np.random.default_rng(0)
    return torch.from_numpy(np.stack([draw.integers(0, size, 16) for size in SIZES], axis=1).astype(np.int32))


@pytest.mark.parametrize(("factory", "options"), MODELS)
def test_logits_have_one_number_per_row_and_every_parameter_learns(
    factory: Callable[..., nn.Module], options: dict[str, object], ids: torch.Tensor
) -> None:
    torch.manual_seed(0)
    model = factory(SIZES, **options)
    logits = model(ids)
    assert logits.shape == (16,)
    (logits * torch.randn(16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("factory", "options"), MODELS)
def test_rows_are_independent_in_evaluation(
    factory: Callable[..., nn.Module], options: dict[str, object], ids: torch.Tensor
) -> None:
    torch.manual_seed(0)
    model = factory(SIZES, **options).eval()
    alone = torch.cat([model(row[None]) for row in ids])
    torch.testing.assert_close(model(ids), alone, rtol=1e-4, atol=1e-5)


def test_fm_is_the_sum_over_all_pairs_of_fields(ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = FactorizationMachine(SIZES, embedding_dim=5).double()
    nn.init.normal_(model.first_order.bias)
    starts = np.concatenate([[0], np.cumsum(SIZES)[:-1]])
    table = model.embedding.table.weight.detach().numpy()
    weights = model.first_order.weights.table.weight.detach().numpy()[:, 0]
    expected = []
    for row in ids.numpy():
        at = starts + row
        pairs = sum(table[at[i]] @ table[at[j]] for i, j in itertools.combinations(range(4), 2))
        expected.append(weights[at].sum() + model.first_order.bias.item() + pairs)
    np.testing.assert_allclose(model(ids).detach().numpy(), expected, rtol=1e-10)


def test_pairs_of_one_field_are_nothing() -> None:
    assert PairwiseProducts()(torch.randn(3, 1, 4)).abs().max() < 1e-6


def test_cross_network_matches_its_recurrence() -> None:
    torch.manual_seed(0)
    network = CrossNetwork(6, depth=3).double()
    layers = [layer for layer in network.modules() if isinstance(layer, CrossLayer)]
    for layer in layers:
        nn.init.normal_(layer.bias)
    x0 = torch.randn(4, 6, dtype=torch.float64)
    x = x0.numpy()
    for layer in layers:
        w, b = layer.project.weight.detach().numpy()[0], layer.bias.detach().numpy()
        x = np.stack([x0.numpy()[n] * float(w @ x[n]) + b + x[n] for n in range(4)])
    np.testing.assert_allclose(network(x0).detach().numpy(), x, rtol=1e-10)


def test_logarithmic_neurons_are_shifted_powers_of_the_fields() -> None:
    """expm1(Σ w log1p|v|) = Π (1 + |v|)^w − 1, kept where positive."""
    torch.manual_seed(0)
    layer = Logarithmic(fields=4, neurons=3).double()
    embedded = torch.randn(2, 4, 5, dtype=torch.float64)
    expected = np.empty((2, 3, 5))
    weight = layer.weight.detach().numpy()
    for n, j, k in itertools.product(range(2), range(3), range(5)):
        power = np.prod((1 + np.abs(embedded[n, :, k].numpy()) + 1e-7) ** weight[j])
        expected[n, j, k] = max(power - 1, 0)
    np.testing.assert_allclose(layer(embedded).detach().numpy(), expected.reshape(2, 15), rtol=1e-9, atol=1e-12)
    assert np.abs(weight).max() <= 0.5


def test_table_rows_of_a_field_follow_those_of_the_field_before() -> None:
    table = FieldTable(SIZES, 2)
    ids = torch.tensor([[2, 0, 1, 10]], dtype=torch.int32)
    rows = table.table.weight[[2, 3, 11, 22]]
    assert torch.equal(table(ids)[0], rows)
    bound = (6 / (sum(SIZES) + 2)) ** 0.5
    assert table.table.weight.abs().max() <= bound


def test_a_zero_spread_starts_from_zero_weights() -> None:
    model = FactorizationMachine(SIZES, first_order_std=0.0)
    assert not model.first_order.weights.table.weight.any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mlp(4, (), 0.0),
        lambda: Mlp(4, (3,), 1.0),
        lambda: AutoInt(SIZES, attention_dim=7, heads=2),
        lambda: DeepCrossNetwork(SIZES, cross_layers=0),
        lambda: FieldTable((3, 0), 2),
        lambda: FactorizationMachine(SIZES, embedding_dim=0),
    ],
)
def test_impossible_options_are_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError):
        make()


def _torchfm_pairs() -> dict[str, tuple[nn.Module, nn.Module, dict[str, str]]]:
    """(our model, theirs, our prefix → theirs)."""
    pytest.importorskip("torchfm")
    from torchfm.model.afn import AdaptiveFactorizationNetwork
    from torchfm.model.dcn import DeepCrossNetworkModel
    from torchfm.model.dfm import DeepFactorizationMachineModel
    from torchfm.model.fm import FactorizationMachineModel

    common = {"embedding.table": "embedding.embedding", "first_order.weights.table": "linear.fc",
              "first_order.bias": "linear.bias"}  # fmt: skip
    blocks = {f"mlp.blocks.{block}.{layer}": f"mlp.mlp.{4 * block + layer}" for block in range(2) for layer in range(4)}
    output = {"mlp.output": "mlp.mlp.8"}
    cross: dict[str, str] = {}
    for number, name in enumerate(("cross.layers.0", "cross.layers.1", "cross.last")):
        cross |= {f"{name}.project": f"cn.w.{number}", f"{name}.bias": f"cn.b.{number}"}
    return {
        "fm": (FactorizationMachine(SIZES, 5), FactorizationMachineModel(SIZES, 5), common),
        "deepfm": (
            DeepFM(SIZES, 5, (6, 4), 0.3),
            DeepFactorizationMachineModel(SIZES, 5, (6, 4), 0.3),
            {**common, **blocks, **output},
        ),
        "dcn": (
            DeepCrossNetwork(SIZES, 5, 3, (6, 4)),
            DeepCrossNetworkModel(SIZES, 5, 3, (6, 4), 0.0),
            {"embedding.table": "embedding.embedding", "output": "linear", **blocks, **cross},
        ),
        "afn": (
            AdaptiveFactorization(SIZES, 5, 9, (6, 4)),
            AdaptiveFactorizationNetwork(SIZES, 5, 9, (6, 4), (0.0, 0.0, 0.0)),
            {**common, **blocks, **output, "logarithmic": "LNN"},
        ),
    }


@pytest.mark.parametrize("name", ["fm", "deepfm", "dcn", "afn"])
def test_forward_equals_torchfm_for_the_same_weights(name: str, ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    ours, theirs, names = _torchfm_pairs()[name]
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.5)
    state = theirs.state_dict()
    for key in state:
        if key.endswith("running_mean"):
            state[key].normal_()
        if key.endswith("running_var"):
            state[key].uniform_(0.5, 2)

    def counterpart(key: str) -> torch.Tensor:
        for prefix in sorted(names, key=len, reverse=True):
            if key == prefix or key.startswith(prefix + "."):
                return state[names[prefix] + key[len(prefix) :]]
        raise KeyError(key)

    ours.load_state_dict({key: counterpart(key) for key in ours.state_dict()})
    ours.eval(), theirs.eval()
    probability = theirs(ids.long()).detach()
    torch.testing.assert_close(torch.sigmoid(ours(ids)).detach(), probability, rtol=0, atol=1e-5)
    middle = (probability > 0.01) & (probability < 0.99)
    assert middle.any()
    torch.testing.assert_close(ours(ids).detach()[middle], torch.logit(probability)[middle], rtol=1e-3, atol=1e-5)

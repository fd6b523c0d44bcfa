"""Parts add up to the model; what cannot be trained in stages is refused with one sentence."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
pytest.importorskip("torch.distributed.pipelining")

from torch.distributed.pipelining import PipelineStage  # noqa: E402

import dfa  # noqa: E402
from dfa.pipeline import Part, ScheduleFeedback, cut  # noqa: E402
from tests.dfa.pipeline.stages import POINTS, Network  # noqa: E402

X, TARGETS = torch.ones(4, 5), torch.arange(4)


class WithPositions(nn.Module):
    """Code between modules, a parameter outside of them, and an argument that only the beginning reads."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.positions, self.late = nn.Parameter(torch.ones(1, 3)), late
        self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        start = torch.cat([self.first(x.flatten(1))[:, :3] + self.positions, x.flatten(1)[:, :3]], 1) * scale
        h = self.second(start.view(x.size(0), -1)).relu()
        return self.head(h + start) if self.late else self.head(h)


def parts_of(build: Callable[[], nn.Module], at: Sequence[str]) -> Iterator[Part]:
    for number in range(len(at) + 1):
        torch.manual_seed(0)
        yield cut(build().eval(), at, number)


@pytest.mark.parametrize(
    ("build", "at", "inputs"),
    [
        *((Network, at, (X,)) for at in [["blocks.2"], ["blocks.0", "norm"], ["head"], ["blocks.1", "blocks.2"]]),
        *((WithPositions, [at], (torch.ones(3, 2, 2), torch.full((3, 1), 2.0))) for at in ("second", "head")),
    ],
)
def test_parts_one_after_the_other_are_the_model(
    build: Callable[[], nn.Module], at: list[str], inputs: tuple[Tensor, ...]
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    expected, names = model(*inputs), [name for name, _ in model.named_parameters() if name != "positions"]
    held: list[str] = []
    for part in parts_of(build, at):
        output = part(*inputs)
        inputs = (output,)
        held += [name for name, _ in part.model.named_parameters() if name != "positions"]
    assert torch.equal(output, expected)
    assert sorted(held) == sorted(names), "each parameter of a module lies in one part"


@pytest.mark.parametrize(
    ("build", "at"),
    [(Network, "blocks.1.outer"), (Network, "blocks.1.inner.1"), (lambda: WithPositions(late=True), "second")],
)
def test_a_value_that_goes_around_the_cut_is_noticed(build: Callable[[], nn.Module], at: str) -> None:
    first, second = parts_of(build, [at])
    inputs = (X,) if build is Network else (torch.ones(3, 2, 2), torch.ones(3, 1))
    with pytest.raises(dfa.PointError, match=f"cannot be cut at '{at}': a value from before is used after it"):
        second(first(*inputs))


class Tied(Network):
    def __init__(self) -> None:
        super().__init__()
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize(
    ("build", "at", "number", "message"),
    [
        (Network, ["blocks.9"], 0, "pattern 'blocks.9' matches no module"),
        (Network, ["blocks.*"], 0, r"a cut needs names of modules in the order of the model, not blocks\.\*"),
        (Network, ["norm", "blocks.1"], 0, "in the order of the model, not norm, blocks.1"),
        (Network, [], 0, "in the order of the model, not none"),
        (Network, [""], 0, "in the order of the model"),
        (Network, ["norm"], 2, r"there is no part 2: 1 cut\(s\) make 2 parts"),
        (Tied, ["blocks.2"], 0, "parts 0 and 1 share the parameter 'embedding.weight'"),
    ],
)
def test_what_cannot_be_cut(build: Callable[[], nn.Module], at: list[str], number: int, message: str) -> None:
    with pytest.raises(dfa.PointError, match=message):
        cut(build(), at, number)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def schedule(rule: dfa.Rule, part: nn.Module, stages: int = 1) -> ScheduleFeedback:
    return ScheduleFeedback(PipelineStage(part, 0, stages, torch.device("cpu")), 2, cross_entropy, rule)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (
            "dkp",
            {},
            "rule 'dkp' does not run in the stages of a pipeline; those that do: dfa, identity, highway, shallow",
        ),
        ("bp", {}, "rule 'bp' does not run in the stages"),
        ("dfa", {"memory": "recompute"}, "memory='recompute' does not go with the stages"),
        ("identity", {"norms": "norm"}, "norms of rule 'identity' do not go with the stages"),
        ("highway", {"norms": "norm"}, "norms of rule 'highway' do not go with the stages"),
        ("highway", {"feedback": "sign"}, "runs in the stages of a pipeline with feedback='transport' only"),
        ("dfa", {"error_at": ["blocks.3", ""]}, "a pipeline has one error tensor, not 2"),
        ("dfa", {"error_at": "blocks.0"}, "error tensor 'blocks.0' lies before the last stage"),
    ],
)
def test_rules_that_do_not_run_in_stages(alone: None, rule: str, options: dict[str, object], message: str) -> None:
    model = Network()
    made = dfa.RULES.build(rule, model, POINTS, **options)
    with pytest.raises(dfa.PointError, match=message):
        schedule(made, cut(model, ["blocks.2"], 0))


def test_modules_that_are_no_parts(alone: None) -> None:
    model = Network()
    rule = dfa.DirectFeedbackAlignment(model, POINTS)
    with pytest.raises(dfa.PointError, match="must be a part made by"):
        schedule(rule, model)
    with pytest.raises(dfa.PointError, match="must be made on the model that was cut"):
        schedule(rule, cut(Network(), ["norm"], 0))
    rule.close()
    part = cut(model, ["blocks.2"], 1)
    made = schedule(dfa.DirectFeedbackAlignment(model, POINTS), part)
    with pytest.raises(dfa.PointError, match=r"of another stage: blocks\.0, blocks\.1, embedding; make the rule first"):
        made.step(torch.ones(4, 6), target=TARGETS)


def test_a_part_that_does_not_end_at_a_point(alone: None) -> None:
    model = Network()
    rule = dfa.DirectFeedbackAlignment(model, ["blocks.*.inner"])
    part = cut(model, ["blocks.2"], 0)
    with pytest.raises(dfa.PointError, match=r"^part 0 must end at a feedback point"):
        schedule(rule, part, stages=2).step(X)


def test_the_library_does_not_import_the_pipeline() -> None:
    """`torch.distributed.pipelining` takes long to import."""
    script = "import sys, dfa; sys.exit('torch.distributed.pipelining' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0

"""Speed measurements: counts against closed forms, and their files; times are not checked."""

import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from benchmarks.commands.bench import main, make_parser
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.speed.depth import METHODS, bench_depth, depth_step, network_options
from benchmarks.speed.measure import Timing, count_flops, in_subprocess, measure_in_subprocess, peak_megabytes
from benchmarks.speed.overhead import bench_overhead
from benchmarks.speed.steps import bench_steps
from benchmarks.speed.turns import Candidate, CandidateFailed, Worker, paired_ratios
from benchmarks.speed.workloads import Step, Workload, build_workload, load_settings, make_step
from benchmarks.utils.paths import CONFIG_DIR
from tests.conftest import Command

CPU = torch.device("cpu")
SMALL = {"network": "perceptron", "options": {"inputs": 32, "widths": [64, 64], "outputs": 8, "rows": 100}}


def small_step(rule: str, mode: str = "eager") -> Step:
    return make_step(build_workload(SMALL, CPU), rule, mode)


def test_flops_are_those_of_the_matrix_products() -> None:
    rows, products = 100, [(32, 64), (64, 64), (64, 8)]
    forward = sum(2 * rows * below * above for below, above in products)
    past_inputs = forward - 2 * rows * 32 * 64  # nothing is sent into the data
    projection = 2 * rows * 8 * 64
    assert count_flops(small_step("bp")) == 2 * forward + past_inputs
    assert count_flops(small_step("dfa")) == 2 * forward + projection, "no input gradients, one projection"
    assert count_flops(small_step("shallow")) == forward + 2 * rows * 64 * 8
    hidden = forward - 2 * rows * 64 * 8
    assert count_flops(small_step("dfa", "recompute")) == 2 * forward + projection + hidden


def test_peak_memory_of_known_allocations() -> None:
    def step() -> None:
        first = torch.zeros(250_000)  # 1 MB
        del first
        held = [torch.zeros(250_000), torch.zeros(500_000)]
        held.clear()

    assert peak_megabytes(step, CPU) == pytest.approx(3.0, rel=0.01)


def test_paired_ratios() -> None:
    mine, theirs = [Timing(2.0, 1.0), Timing(9.0, 2.0)], [Timing(4.0, 1.0), Timing(3.0, 1.0)]
    assert paired_ratios(mine, theirs, lambda timing: timing.wall) == [0.5, 3.0]
    assert median(paired_ratios(mine, theirs, lambda timing: timing.cpu)) == 1.5


@pytest.mark.parametrize(("network", "options"), load_settings("depth")["networks"].items())
def test_recomputing_needs_the_memory_of_one_block(network: str, options: dict[str, object]) -> None:
    """Flat within a tenth from 8 to 32 blocks, while the ordinary modes grow with every block."""

    def peak(method: str, blocks: int) -> float:
        small = {**options, "rows": 512} if network == "perceptron" else {**options, "columns": 2, "length": 64}
        entry = {"network": network, "options": network_options(network, small, blocks)}
        step = depth_step(build_workload(entry, CPU), method)
        step()
        return peak_megabytes(step, CPU)

    assert peak("dfa_recompute", 32) < 1.1 * peak("dfa_recompute", 8)
    assert peak("dfa", 16) > 1.5 * peak("dfa", 8)
    assert peak("bp_checkpoint", 16) > peak("bp_checkpoint", 8)


def test_depth_rows() -> None:
    rows = bench_depth(CPU, 1, [2], ["transformer"])
    assert [row["method"] for row in rows] == list(METHODS)
    assert all(row["blocks"] == 2 and row["peak_mb"] > 1 and row["median_ms"] > 0 for row in rows)


def test_overhead_rows() -> None:
    runner, alignment = bench_overhead(CPU, 10)
    assert (runner["what"], alignment["what"]) == ("runner", "alignment")
    assert runner["pairs"] == 9
    assert 0.1 < runner["ratio"] < 10
    assert 0.1 < alignment["cpu_ratio"] < 10


def test_a_step_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = build_workload(SMALL, CPU)
    step = make_step(workload, "dfa")
    before = workload.loss(workload.model).item()
    workload.model.zero_grad()
    for _ in range(60):
        step()
    assert workload.loss(workload.model).item() < 0.8 * before


def test_steps_side_by_side() -> None:
    rules = ["bp", "dfa", "tests.speed.test_bench:half_a_step", "tests.speed.test_bench:broken"]
    rows = bench_steps(["tiny_nerf"], rules, ["eager", "recompute"], "cpu", 1, 3, 0.01)
    assert [(row["rule"], row["mode"]) for row in rows] == [*((rule, "eager") for rule in rules), ("dfa", "recompute")]
    bp, dfa, peer, broken, recomputed = rows
    assert bp["ratio_to_bp"] == bp["flop_ratio"] == 1
    forward, input_gradient, projection = 63 * 128 + 128 * 128 + 128 * 4, 128 * 128 + 128 * 4, 4 * 128
    assert dfa["flop_ratio"] == pytest.approx((2 * forward + projection) / (2 * forward + input_gradient), rel=1e-3)
    assert dfa["peak_mb"] > 1
    assert peer["flop_ratio"] < 0.5
    assert broken["failure"].startswith("ZeroDivisionError") and "median_ms" not in broken
    assert recomputed["flop_ratio"] > dfa["flop_ratio"]


def test_every_rule_on_a_model_of_each_family(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules_of = load_settings("rules")
    assert rules_of.keys() <= {entry["name"] for entry in load_settings("steps")}
    known = {path.stem for path in (CONFIG_DIR / "rule").glob("*.yaml")}
    assert {rule for rules in rules_of.values() for rule in rules} == known
    settings = {"rules": {"gcn": ["bp", "dkp"], "dcn": ["bp"]}, "steps": load_settings("steps")}
    monkeypatch.setattr("benchmarks.speed.steps.load_settings", settings.__getitem__)
    arguments = ("--parts", "rules", "--models", "gcn", "--rounds", "2", "--seconds", "0.01")
    assert command(main, *arguments, "--results", str(tmp_path))[0] == 0
    rows = json.loads((tmp_path / "bench" / "rules.json").read_text())
    assert [(row["model"], row["rule"]) for row in rows] == [("gcn", "bp"), ("gcn", "dkp")]
    assert all(row["ratio_to_bp"] > 0 for row in rows)


def test_a_candidate_that_cannot_go_on_has_its_row_and_the_others_go_on() -> None:
    """One whose step fails in a turn, one whose process ends there, and one that fails after all turns."""
    peers = ["fails_in_a_turn", "ends_in_a_turn", "fails_at_last"]
    rules = ["bp", *(f"tests.speed.test_bench:{peer}" for peer in peers), "dfa"]
    bp, *failed, dfa = bench_steps(["tiny_nerf"], rules, ["eager"], "cpu", 1, TURNS, 1e-9)
    assert [row["rule"] for row in failed] == rules[1:-1]
    reasons = [row["failure"].partition(":")[0] for row in failed]
    assert reasons == ["ZeroDivisionError", "its process ended with code 7", "ZeroDivisionError"]
    assert not any("median_ms" in row for row in failed)
    assert bp["ratio_to_bp"] == 1 and dfa["ratio_to_bp"] > 0 and dfa["flop_ratio"] > 0


def test_a_process_that_is_killed_between_turns_withdraws() -> None:
    with Worker(Candidate(SMALL, "bp", "eager", "cpu", 1)) as worker:
        assert worker.time_steps(2).wall > 0
        worker._process.kill()
        worker._process.join()
        for ask in (lambda: worker.time_steps(1), worker.resources):
            with pytest.raises(CandidateFailed, match="ended with code -9"):
                ask()


def take_memory() -> dict[str, int]:
    return {"size": len(b"x" * 200 * 2**20)}


def test_memory_is_that_of_the_work_alone() -> None:
    found = measure_in_subprocess(take_memory, "memory")
    assert found["size"] == 200 * 2**20
    assert 180 < found["peak_memory_mb"] - found["imports_memory_mb"] < 270


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_work_that_is_killed_is_told() -> None:
    with pytest.raises(ResultsError, match=r"^memory of dfa: the process was killed, perhaps for lack of memory$"):
        in_subprocess(be_killed, "memory of dfa")


def half_a_step(workload: Workload) -> Step:
    """Peer that only runs the model forward."""
    return lambda: forward(workload.model, workload.loss)


def forward(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
    with torch.no_grad():
        loss(model)


def broken(workload: Workload) -> Step:
    """Peer whose step fails."""
    return lambda: print(1 / 0)


def ending(at: int, end: Callable[[], object]) -> Callable[[Workload], Step]:
    """Return a peer that calls `end` at its step with the number `at`."""

    def peer(workload: Workload) -> Step:
        numbers = itertools.count(1)

        def step() -> None:
            if next(numbers) == at:
                end()

        return step

    return peer


WARM, TURNS = 3, 3
"""Steps before the first turn, and turns of one step each."""
fails_in_a_turn = ending(WARM + 2, lambda: 1 / 0)
ends_in_a_turn = ending(WARM + 2, lambda: os._exit(7))
fails_at_last = ending(WARM + TURNS + 1, lambda: 1 / 0)


def test_a_part_without_rows_leaves_its_files_alone(tmp_path: Path, command: Command) -> None:
    (tmp_path / "bench").mkdir()
    for kind in ("json", "md"):
        (tmp_path / "bench" / f"rules.{kind}").write_text("of an earlier time")
    code, out, err = command(main, "--parts", "rules", "--models", "tiny_nerf", "--results", str(tmp_path))
    assert (code, err) == (0, "") and "rules: none of the models is measured here" in out
    assert {path.read_text() for path in (tmp_path / "bench").iterdir()} == {"of an earlier time"}


def test_command_writes_json_tables_and_plots(tmp_path: Path, command: Command) -> None:
    arguments = ["--models", "gcn", "--rules", "bp,dfa", "--rounds", "2", "--seconds", "0.01", "--depths", "2"]
    arguments += ["--parts", "steps,memory,overhead,profile"]
    code, out, err = command(main, *arguments, "--results", str(tmp_path))
    assert (code, err) == (0, "")
    folder = tmp_path / "bench"
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in ("steps", "memory") for kind in ("json", "md", "png")
    } | {f"{name}.{kind}" for name in ("overhead", "profile") for kind in ("json", "md")}
    (whole,) = [row for row in json.loads((folder / "profile.json").read_text()) if row["operator"] == "all"]
    parts = [row for row in json.loads((folder / "profile.json").read_text()) if row["operator"] != "all"]
    assert whole["dfa_ms"] == pytest.approx(sum(row["dfa_ms"] for row in parts)) and whole["dfa_calls"] > 100
    rows = json.loads((folder / "steps.json").read_text())
    wanted = {"model", "rule", "mode", "device", "median_ms", "ratio_to_bp", "peak_mb", "flop_ratio", "threads", "size"}
    assert [row["rule"] for row in rows] == ["bp", "dfa"]
    assert all(wanted <= set(row) for row in rows)
    lines = [[cell.strip() for cell in line.split("|")[1:6]] for line in out.splitlines()]
    assert ["gcn", rows[0]["size"], "dfa", "eager", f"{rows[1]['median_ms']:.1f}"] in lines
    assert "DFA, memory=recompute" in (folder / "memory.md").read_text()


def test_results_go_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DFA_RESULTS_DIR", raising=False)
    assert make_parser().parse_args(["models"]).results == Path("results")
    monkeypatch.setenv("DFA_RESULTS_DIR", str(tmp_path))
    assert make_parser().parse_args(["models"]).results == tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "vgg"], "unknown model of the bench 'vgg'; known: nerf_trunk"),
        (["--rules", "bp,hebb"], "--rules: unknown rule 'hebb'; known: bp, calibrate, dfa, "),
        (["--modes", "quick"], "--modes: unknown mode 'quick'; known: eager, recompute, compiled, cuda_graph"),
        (
            ["--parts", "all"],
            "--parts: unknown part 'all'; known: steps, rules, memory, overhead, profile, pipeline, latency",
        ),
        (["--parts", ","], "--parts names no part; known: steps, rules, "),
        (["--device", "abacus"], "device 'abacus' is not usable here"),
        (["--parts", "rules", "--models", "vgg"], "unknown model of the bench 'vgg'; known: nerf_trunk"),
        (["--depths", "a"], "--depths: numbers of blocks, at least 1 and separated by commas, not 'a'"),
        (["--depths", "4,0"], "--depths: numbers of blocks, at least 1 and separated by commas, not '4,0'"),
        (["--parts", "latency", "--before", "configs"], "--before: 'configs' is no checkout of this project"),
    ],
)
def test_what_cannot_be_benched(arguments: list[str], message: str, tmp_path: Path, command: Command) -> None:
    code, _, err = command(main, *arguments, "--results", str(tmp_path))
    assert code == 2
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_peer_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"peer 'no\.where:step' cannot be imported"):
        small_step("no.where:step")


def test_every_entry_of_the_bench_can_be_built() -> None:
    for entry in load_settings("steps"):
        workload = build_workload(entry, CPU)
        assert workload.model.training and workload.placement["points"]
        assert entry["size"]

"""Measure time and memory of training steps. `python -m benchmarks bench` alone measures the models of all families."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import command_parser, positive, seconds, words
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks bench`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in ("models", "language", "nerf", "click_logs", "-h", "--help"):
        given = ["models", *given]
    options = make_parser().parse_args(given)
    sys.exit(guarded(lambda: options.run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("bench", __doc__ or "", "bench models --models gcn,dcn --parts steps --threads 2")
    subjects = parser.add_subparsers(metavar="SUBJECT", required=True)
    for name, add, what in (
        (
            "models",
            _add_models,
            "all models under every rule: steps, rules, memory, overhead, profile, pipeline, latency (default)",
        ),
        ("language", _add_language, "the paper's Transformer under every rule, step by step, beside plain PyTorch"),
        ("nerf", _add_nerf, "a neural radiance field under every rule, beside nerf-pytorch if a copy is at hand"),
        (
            "click_logs",
            _add_click_logs,
            "preprocessing and reading of click logs, and the recommenders' steps at full size",
        ),
    ):
        add(subjects.add_parser(name, help=what, description=what))
    return parser


def _add_models(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parts = "steps,rules,memory,overhead,profile,pipeline,latency"
    add("--parts", type=words, default=parts, help="of %(default)s (default: all)")
    add("--models", type=words, default="", help="entries of configs/bench/steps.yaml (default: all)")
    add(
        "--rules",
        type=words,
        default="bp,dfa,shallow",
        help="rules, bp first, or package.module:function, which gets a benchmarks.speed.workloads.Workload and returns"
        " its training step (default: %(default)s)",
    )
    modes = "eager, recompute, compiled or cuda_graph"
    add("--modes", type=words, default="eager,recompute", help=f"{modes} (default: %(default)s)")
    depths = "numbers of blocks for the part memory (default: configs/bench/depth.yaml)"
    add("--depths", type=words, default="", help=depths)
    add("--device", default="cpu", help="e.g. cuda (default: %(default)s)")
    add("--threads", type=positive, default=1, help="of every contestant (default: %(default)s)")
    add("--rounds", type=positive, default=11, help="turns of every contestant (default: %(default)s)")
    add("--seconds", type=seconds, default=0.3, help="length of a turn (default: %(default)s)")
    add("--before", type=Path, metavar="FOLDER", help="checkout of other code to compare with in the part latency")
    _add_results(parser)
    parser.set_defaults(run=_models)


def _models(options: argparse.Namespace) -> int:
    from benchmarks.speed.suite import Suite, measure

    chosen = {name: value for name, value in vars(options).items() if name not in ("run", "results")}
    return EXIT_DONE if measure(Suite(**chosen), options.results / "bench") else EXIT_RUNS_FAILED


def _add_language(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rules", type=words, default="bp,macro,micro,shallow", help="some of these and torch (default: %(default)s)")
    add("--columns", type=positive, default=8, help="columns of 128 tokens in a step (default: %(default)s)")
    add("--steps", type=positive, default=20, help="of every rule (default: %(default)s)")
    add("--device", default="cpu", help="e.g. cuda (default: %(default)s)")
    add("--precision", default="float32", choices=["float32", "bfloat16"], help="(default: %(default)s)")
    add("--compile", action="store_true", help="run the model through torch.compile")
    _add_out(parser)
    parser.set_defaults(run=_language)


def _language(options: argparse.Namespace) -> int:
    from benchmarks.speed.language import Setting, bench
    from benchmarks.speed.report import print_json

    setting = Setting(options.columns, device=options.device, precision=options.precision, compiled=options.compile)
    print_json(bench(options.rules, setting, options.steps), options.out)
    return EXIT_DONE


def _add_nerf(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default="nerf", choices=("tiny_nerf", "nerf_release", "nerf"), help="(default: %(default)s)")
    add("--rays", type=positive, default=0, help="per step (default: as configured)")
    add("--parts", type=positive, default=0, help="batches that a step is cut into (default: as configured)")
    add("--rounds", type=positive, default=5, help="timed steps of every rule (default: %(default)s)")
    add("--device", default="cpu", help="e.g. cuda (default: %(default)s)")
    add("--peer", type=Path, help="folder with the sources of nerf-pytorch; compares the network nerf")
    _add_out(parser)
    parser.set_defaults(run=_nerf)


def _nerf(options: argparse.Namespace) -> int:
    from benchmarks.speed.nerf import bench
    from benchmarks.speed.report import print_json

    found = bench(options.model, options.rays, options.parts, options.rounds, options.device, options.peer)
    print_json(found, options.out)
    return EXIT_DONE


def _add_click_logs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("part", nargs="*", help="preprocess, memory (12 GB of disk), engines, cells or optimizers (default: all)")
    add("--rows", type=positive, default=2_000_000, help="rows for preprocess (default: %(default)s)")
    add("--many", type=positive, default=20_000_000, help="rows for memory (default: %(default)s)")
    add("--vocabulary", type=positive, default=250_000, help="values in each of the log's large fields")
    add("--device", default="cpu", help="of cells (default: %(default)s)")
    add("--scratch", type=Path, help="folder for logs and caches (default: temporary)")
    _add_results(parser)
    parser.set_defaults(run=_click_logs)


def _click_logs(options: argparse.Namespace) -> int:
    from benchmarks.speed.click_logs.suite import Suite, measure

    suite = Suite(options.rows, options.many, options.vocabulary, options.device, options.scratch)
    measure(options.part, suite, options.results / "bench")
    return EXIT_DONE


def _add_results(parser: argparse.ArgumentParser) -> None:
    default = Path(os.environ.get("DFA_RESULTS_DIR") or "results").expanduser()
    parser.add_argument("--results", type=Path, default=default, help="folder of the results (default: results)")


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write")

"""Options that several commands share."""

import argparse


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """What determines which runs a table or figure takes."""
    parser.add_argument("--scale", default="auto", help="auto (default) | paper | mini | smoke")
    parser.add_argument("--seeds", type=int, help="seeds per cell of a table (default: its own); a figure shows seed 0")
    parser.add_argument("--rules", default="", help="further rules to add as rows, separated by commas")
    parser.add_argument("--results", default="", help="folder of runs, tables and figures (default: results)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every run")


def overrides(options: argparse.Namespace) -> list[str]:
    """What the options say about every run and their launcher."""
    launcher, jobs = getattr(options, "launcher", ""), getattr(options, "jobs", None)
    return [
        *([f"launcher={launcher}"] if launcher else []),
        *([f"launcher.jobs={jobs}"] if jobs is not None else []),
        *options.set,
        *([f"run.results_dir={options.results}"] if options.results else []),
    ]

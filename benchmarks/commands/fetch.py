"""Fetching public data sets when the user asks for them: the only place from which the network is used."""

import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_config_dir, command_parser
from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError, DataError
from benchmarks.run.build import build_task, load_components
from benchmarks.utils.exits import EXIT_DONE, EXIT_UNUSABLE, guarded
from benchmarks.utils.paths import config_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks fetch`."""
    parser = command_parser("fetch", __doc__ or "", "fetch cora pubmed")
    add_config_dir(parser)
    parser.add_argument("task", nargs="+", help=f"one or more of: {', '.join(known_tasks())}")
    parser.add_argument("--data-dir", default="", help="where to put them (default: DFA_DATA_DIR, else data/)")
    options = parser.parse_args(arguments)

    def command() -> int:
        unknown = [name for name in options.task if name not in known_tasks()]
        if unknown:
            raise ConfigError(f"unknown task '{unknown[0]}'; known: {', '.join(known_tasks())}")
        fetched = [fetch_task(name, options.data_dir) for name in options.task]
        return EXIT_DONE if all(fetched) else EXIT_UNUSABLE

    sys.exit(guarded(command))


def known_tasks() -> list[str]:
    """Tasks that have a configuration."""
    return list(config_files("task"))


def fetch_task(name: str, data_dir: str = "") -> bool:
    """Fetch and verify the data of one task; prints what became of it. False if it could not be had."""
    place = [f"run.data_dir={data_dir}"] if data_dir else []
    config = resolve(compose_config([f"task={name}", "run.download=true", *place]))
    load_components(config)
    try:
        task = build_task(config)
    except DataError as error:
        print(f"error: {name}: {error}", file=sys.stderr)
        return False
    print(f"{name}: {task.info.kind} data in {config.run.data_dir}, {len(task.info.checksums)} file(s) verified")
    return True

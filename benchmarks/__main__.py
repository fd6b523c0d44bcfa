"""Run one of the suite's commands.

Usage: python -m benchmarks COMMAND …

  train      train one run, or a sweep with -m
  reproduce  run what a table or figure needs, then write it
  status     show what there is of each table and figure
  fetch      fetch public data sets
  tune       choose the learning rates of a table on validation
  search     search for the best settings of a run
  rank       rank recorded settings by validation
  bench      measure time and memory of training steps
  chaos      kill the processes of a sweep and compare with an undisturbed one
  sample     draw text from a trained language model
  video      write a video of a trained radiance field
  released   evaluate a radiance field that the paper's authors released
  records    commit the runs behind tables, bring them back, check tables against them
  site       build pages to browse: documents, reference, tables down to their runs

`python -m benchmarks COMMAND --help` says more, with an example.
"""

import sys
from importlib import import_module

COMMANDS = (
    "train",
    "reproduce",
    "status",
    "fetch",
    "tune",
    "search",
    "rank",
    "bench",
    "chaos",
    "sample",
    "video",
    "released",
    "records",
    "site",
)


def main() -> None:
    """Hand the arguments on to the command that the first one names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print((__doc__ or "").strip())
        sys.exit(0)
    if name not in COMMANDS:
        print(f"error: {_unknown(name)}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"python -m benchmarks {name}", *sys.argv[2:]]
    # Imported late, so that a command loads only what it needs.
    import_module(f"benchmarks.commands.{name}").main()


def _unknown(word: str) -> str:
    """Say that no command has this name, and which may be meant."""
    from benchmarks.utils.text import unknown_name

    if "=" in word or word in ("-m", "--multirun"):
        return f"'{word}' is no command: to train, begin with train, as in python -m benchmarks train {word} …"
    return unknown_name("command", word, COMMANDS)


if __name__ == "__main__":
    main()

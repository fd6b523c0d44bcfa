"""Make a table or figure: the same as `python -m benchmarks reproduce`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the suite runs from its clone

from benchmarks.commands.reproduce import main

if __name__ == "__main__":
    main()

"""Fetch public data sets: the same as `python -m benchmarks fetch`."""

from benchmarks.commands.fetch import main

if __name__ == "__main__":
    main()

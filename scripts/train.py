"""Train one run, or a sweep with -m: the same as `python -m benchmarks train`."""

from benchmarks.commands.train import main

if __name__ == "__main__":
    main()

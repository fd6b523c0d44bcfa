"""Bench a training step under every rule: python scripts/bench.py --help"""

from benchmarks.bench import main

if __name__ == "__main__":
    main()

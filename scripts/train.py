"""Train one run, or a sweep with -m: python scripts/train.py task=cora model=gcn rule=dfa seed=0"""

from benchmarks.cli import main

if __name__ == "__main__":
    main()

"""Choose the learning rates of a table on validation: python scripts/tune.py --help"""

from benchmarks.tuning import main

if __name__ == "__main__":
    main()

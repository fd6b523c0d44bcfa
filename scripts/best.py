"""Recorded runs of a task, model and rule, the best on validation first."""

from benchmarks.best import main

if __name__ == "__main__":
    main()

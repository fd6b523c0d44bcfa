"""Evaluate a NeRF model that the paper's authors released; see `benchmarks.view_synthesis.released`."""

from benchmarks.view_synthesis.released import main

if __name__ == "__main__":
    main()

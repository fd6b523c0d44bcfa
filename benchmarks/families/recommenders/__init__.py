"""Recommenders: click-through rate prediction on Criteo, MovieLens and a synthetic log."""

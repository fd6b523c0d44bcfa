"""Recommenders: click-through rate prediction on Criteo, MovieLens and a stand-in log."""

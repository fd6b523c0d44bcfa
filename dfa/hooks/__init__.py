"""Where rules meet the model: hooks that record activations and cut the graph."""

"""The benchmark suite: tasks, models and the shared runner around the `dfa` library."""

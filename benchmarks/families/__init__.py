"""The four families of tasks; each registers its tasks, models, figures and rules when it is imported."""

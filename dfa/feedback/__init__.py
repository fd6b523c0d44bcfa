"""How an error is carried to the feedback points."""

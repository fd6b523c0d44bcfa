"""The four families of tasks; importing one takes seconds, so each part of it is imported when it is needed."""

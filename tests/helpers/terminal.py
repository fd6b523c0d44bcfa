"""A terminal that can be read."""

import io


class Terminal(io.StringIO):
    """Keeps what is written to it, as a stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

"""Errors that a user can fix: each is shown as one line and ends the program with exit code 2."""


class SuiteError(Exception):
    """Base of the errors whose message is meant for the user, without a traceback."""


class ConfigError(SuiteError):
    """Option, name or combination that cannot be run."""


class DataError(SuiteError):
    """Data set that is missing, corrupted or malformed."""


class ResultsError(SuiteError):
    """Results folder that cannot be written, or record that cannot be read."""

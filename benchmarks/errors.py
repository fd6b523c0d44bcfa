"""Errors that a user can mend: each is shown as one line and ends the program with exit code 2."""


class SuiteError(Exception):
    """Base of the errors whose message is meant for the user, without a traceback."""


class ConfigError(SuiteError):
    """An option, name or combination that cannot be run."""


class DataError(SuiteError):
    """A data set that is missing, corrupted or malformed."""


class ResultsError(SuiteError):
    """A results folder that cannot be written or a record that cannot be read."""

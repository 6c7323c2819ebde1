"""The errors that a day's stages raise. `error.retryable` says whether running the stage again can help.

QualityError
├── ConfigWrong             a folder or an address that is wrong
├── RunWrong                a run id that is no name, or a stage whose earlier stages have not been run
├── ServiceFailed           the ingest service refused or does not answer; retryable in the latter case
├── ModelFailed             a dbt model or test failed, or the project cannot be read
├── CheckFailed             an expectation that stops the day was not met
├── BalanceFailed           two counts that must be equal are not
├── ReconciliationFailed    live and batch differ, or nothing was compared; retryable while a view is rebuilt
└── PublishConflict         another run has published since this one took its copy: build again
"""

from __future__ import annotations


class QualityError(Exception):
    """Root of the day's errors; its text says what failed, with which numbers, and where to look."""

    retryable: bool = False


class ConfigWrong(QualityError):
    """A folder or an address that is wrong; the text says which and what to set."""


class RunWrong(QualityError):
    """A run id that cannot name a folder, or a stage that is run before those it needs."""


class ServiceFailed(QualityError):
    """The ingest service refused a call, or did not answer; `code` is the gRPC status."""

    def __init__(self, message: str, code: str, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class LakeFailed(QualityError):
    """The lake's pinned version cannot be read, or the project's sources do not describe it."""


class ModelFailed(QualityError):
    """A dbt model or test failed; `names` are those that did, `log` is dbt's log file."""

    def __init__(self, message: str, names: list[str], log: str) -> None:
        super().__init__(message)
        self.names = names
        self.log = log


class CheckFailed(QualityError):
    """Expectations that stop the day were not met; `checks` names them."""

    def __init__(self, message: str, checks: list[str]) -> None:
        super().__init__(message)
        self.checks = checks


class BalanceFailed(QualityError):
    """Two independent counts that must be equal are not; `lines` says which and holds both numbers."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines


class ReconciliationFailed(QualityError):
    """A live view and its dbt model differ without a cause, or could not be compared; `views` names them.

    Retryable when nothing but time is missing: views that were still being rebuilt.
    """

    def __init__(self, message: str, views: list[str], retryable: bool = False) -> None:
        super().__init__(message)
        self.views = views
        self.retryable = retryable


class PublishConflict(QualityError):
    """The published warehouse is not the one this run's copy was made from."""

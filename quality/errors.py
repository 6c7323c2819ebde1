"""The errors that a day's stages raise. `error.retryable` says whether running the stage again can help.

QualityError
├── ConfigWrong             a folder or an address that is wrong
├── RunWrong                a run id that is no name, or a stage whose earlier stages have not been run
├── ServiceFailed           the ingest service refused or does not answer; retryable in the latter case
├── LakeFailed              the lake's pinned version cannot be read
├── ModelFailed             a dbt model or test failed, or the project cannot be read
├── CheckFailed             an expectation that stops the day was not met
├── BalanceFailed           two counts that must be equal are not
├── ReconciliationFailed    live and batch differ, or nothing was compared; retryable while a view is rebuilt
├── PublishConflict         another run has published since this one took its copy: build again
├── LandingFailed           a landed file could not be imported; set aside, or where it is; retryable from a store
├── UpkeepFailed            a part of the upkeep could not be done; retryable
└── DiskFull                no space was left; readers are not disturbed; retryable once there is some
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

_NO_SPACE = "No space left on device"


@dataclass(frozen=True)
class Finding:
    """One model, test or check that failed: how many rows, some of them as text, and the file that holds all.

    rows: None where it is not about rows. file: empty where none was written.
    """

    name: str
    message: str
    rows: int | None = None
    sample: tuple[str, ...] = ()
    file: str = ""


class QualityError(Exception):
    """Root of the day's errors; its text says what failed, with which numbers, and where to look.

    names: the models, checks or views that failed, where it is about such. findings: each of them with its rows.
    """

    retryable: bool = False

    def __init__(self, message: str, *, names: Sequence[str] = (), findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)
        self.names = list(names) or [finding.name for finding in findings]


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

    def __init__(self, message: str, names: Sequence[str], log: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message, names=names, findings=findings)
        self.log = log


class CheckFailed(QualityError):
    """Expectations that stop the day were not met; `checks` names them. results: of all, as in the run's record."""

    def __init__(
        self,
        message: str,
        checks: Sequence[str],
        findings: Sequence[Finding] = (),
        results: Sequence[dict[str, object]] = (),
    ) -> None:
        super().__init__(message, names=checks, findings=findings)
        self.checks = list(checks)
        self.results = list(results)


class BalanceFailed(QualityError):
    """Two independent counts that must be equal are not; `lines` says which and holds both numbers."""

    def __init__(self, message: str, lines: Sequence[str]) -> None:
        super().__init__(message, names=lines)
        self.lines = list(lines)


class ReconciliationFailed(QualityError):
    """A live view and its dbt model differ without a cause, or could not be compared; `views` names them.

    Retryable when nothing but time is missing: views that were still being rebuilt.
    """

    def __init__(
        self, message: str, views: Sequence[str], retryable: bool = False, findings: Sequence[Finding] = ()
    ) -> None:
        super().__init__(message, names=views, findings=findings)
        self.views = list(views)
        self.retryable = retryable


class PublishConflict(QualityError):
    """The published warehouse is not the one this run's copy was made from."""


class LandingFailed(QualityError):
    """A file in the landing folder could not be imported.

    stream, file: which one; reason: what was expected and what came; moved_to: where it was set aside, below the
    landing folder, or empty when it stays; rows_sent: how many of its rows had been sent before. Retryable when the
    store that it lies in did not answer.
    """

    def __init__(
        self,
        message: str,
        *,
        stream: str = "",
        file: str = "",
        reason: str = "",
        moved_to: str = "",
        rows_sent: int = 0,
        retryable: bool = False,
    ) -> None:
        super().__init__(message, names=[f"{stream}/{file}"] if file else [])
        self.stream, self.file, self.reason = stream, file, reason or message
        self.moved_to, self.rows_sent = moved_to, rows_sent
        self.retryable = retryable


class UpkeepFailed(QualityError):
    """A part of the upkeep could not be done; `what` names it. The others do not depend on it."""

    retryable = True

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what


class DiskFull(QualityError):
    """No space was left. The run's copy of the warehouse is removed, and made anew when the stage is run again."""

    retryable = True


def disk_full(error: BaseException) -> DiskFull | None:
    """Give what tells of a full disk when that is what went wrong, in Python, in DuckDB or in dbt; otherwise None."""
    if isinstance(error, DiskFull):
        return error
    text = str(error)
    if _NO_SPACE not in text and getattr(error, "errno", None) != errno.ENOSPC:
        return None
    return DiskFull(
        f"the disk is full: {' '.join(text.split())[:300]}. The published warehouse is as it was, and this run's copy "
        "is removed. Free some space (`tidemill data usage` says what takes it), then run the task again"
    )

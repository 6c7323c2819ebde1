"""Which failures a retry can help, as Airflow is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

# Of whoever wrote the code: the same again the next time.
_MISTAKES = (ImportError, SyntaxError, NameError, AttributeError, TypeError)


def retry_arguments(retries: int) -> dict[str, Any]:
    """Give the retries of a task that may fail for what passes by itself: a service that restarts, a lock, a store.

    Ten seconds, twenty, forty and so on, up to five minutes. What cannot get better by itself is not tried again,
    whatever the number: see `unless_retryable`.
    """
    return {
        "retries": retries,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=5),
    }


@contextmanager
def unless_retryable() -> Iterator[None]:
    """Fail for good with what no retry can help: a failed check, a failed model, a wrong setting."""
    from quality.errors import QualityError

    try:
        yield
    except QualityError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error
    except _MISTAKES as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error

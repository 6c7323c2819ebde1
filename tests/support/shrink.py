"""Makes a failing life of a view small enough to be understood: few steps, few rows, few columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from support.random_models import Model
from support.random_steps import Append, Step

Fails = Callable[[Model, Sequence[Step]], str]
ATTEMPTS_MAX = 300
"""How many smaller lives are played for one that fails."""


def shrink(model: Model, steps: Sequence[Step], fails: Fails) -> tuple[Model, list[Step], str]:
    """A smaller model and a shorter life that still fail, and how. fails: the Disagreement's text, or nothing."""
    shrinker = _Shrinker(model, list(steps), fails)
    shrinker.run()
    return shrinker.model, shrinker.steps, shrinker.message


class _Shrinker:
    def __init__(self, model: Model, steps: list[Step], fails: Fails) -> None:
        self.model, self.steps = model, steps
        self._fails = fails
        self._left = ATTEMPTS_MAX
        self.message = fails(model, steps)

    def run(self) -> None:
        """First fewer steps, then fewer rows, then fewer columns; again while it helps."""
        size = -1
        while size != self._size() and self._left > 0:
            size = self._size()
            for end in range(1, len(self.steps)):
                if self._try(self.model, self.steps[:end]):
                    break
            self._drop(lambda i: self.steps[:i] + self.steps[i + 1 :], lambda: len(self.steps))
            for part in (2, 4, 8, 1000):
                self._fewer_rows(part)
            for i in reversed(range(len(self.model.items))):
                if len(self.model.items) > 1:
                    self._try(self.model.without(i), self.steps)

    def _drop(self, without: Callable[[int], list[Step]], count: Callable[[], int]) -> None:
        for i in reversed(range(count())):
            if count() > 1:
                self._try(self.model, without(i))

    def _fewer_rows(self, parts: int) -> None:
        """Leaves out parts of each append's rows."""
        for i in reversed(range(len(self.steps))):
            step = self.steps[i]
            if not isinstance(step, Append):
                continue
            for j in reversed(range(len(step.batches))):
                step = self.steps[i]
                assert isinstance(step, Append)
                rows = step.batches[j]
                width = max(1, len(rows) // parts)
                for start in reversed(range(0, len(rows), width)):
                    step = self.steps[i]
                    assert isinstance(step, Append)
                    kept = step.batches[j][:start] + step.batches[j][start + width :]
                    batches = (*step.batches[:j], kept, *step.batches[j + 1 :])
                    self._try(self.model, [*self.steps[:i], replace(step, batches=batches), *self.steps[i + 1 :]])

    def _try(self, model: Model, steps: list[Step]) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        message = self._fails(model, steps)
        if message:
            self.model, self.steps, self.message = model, steps, message
        return bool(message)

    def _size(self) -> int:
        rows = sum(len(batch) for step in self.steps if isinstance(step, Append) for batch in step.batches)
        return rows + len(self.steps) + len(self.model.items)

"""Writes docs/reference/python.md, the SDK's public names: `python tests/unit/repo/python_reference.py`."""

import dataclasses
import enum
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docs" / "reference" / "python.md"
MODULES = ("tidemill", "tidemill.aio", "tidemill.testing")
HEAD = """\
# Python

What `tidemill` promises: names and signatures that stand here are changed only with a note in the changelog.
Written by `python tests/unit/repo/python_reference.py` from the code; a test holds it to that. Errors are listed in
[errors.md](errors.md#in-the-sdk).
"""


class Raw(str):
    """An annotation as it is written."""

    __repr__ = str.__str__


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for name in MODULES for line in module_lines(importlib.import_module(name)))]) + "\n"


def module_lines(module: ModuleType) -> Iterator[str]:
    """One module's public names."""
    yield f"## {module.__name__}\n"
    for name in sorted(public_names(module), key=lambda name: (name.lower(), name)):
        value = getattr(module, name)
        if isinstance(value, type):
            yield from class_lines(name, value)
        elif inspect.isfunction(value):
            yield f"### {name}\n\n`{name}{signature(value)}`\n\n{first_sentence(value)}\n"
        elif name != "__version__":
            yield f"### {name}\n\n`{value!r}`\n"


def public_names(module: ModuleType) -> list[str]:
    """The names that a module says are public; those that it defines where it says nothing."""
    told = getattr(module, "__all__", None)
    return list(told) if told else [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]  # fmt: skip


def class_lines(name: str, kind: type) -> Iterator[str]:
    """A class: what it is, its values or fields, and its public members."""
    base = kind.__bases__[0]
    below = f" ({base.__name__})" if base.__module__.startswith("tidemill") else ""
    yield f"### {name}{below}\n\n{first_sentence(kind)}\n"
    if issubclass(kind, enum.Enum):
        yield "\n".join(f"- `{member.name}`" for member in kind) + "\n"
        return
    lines = list(member_lines(kind))
    if issubclass(kind, Exception):
        own = inspect.signature(kind).parameters if "__init__" in vars(kind) else {}
        lines = [f"- `{each.name}: {each.annotation}`" for each in own.values() if each.name != "message"] + lines
        lines.insert(0, f"- `retryable`: {kind.retryable}")
    if lines:
        yield "\n".join(lines) + "\n"


def member_lines(kind: type) -> Iterator[str]:
    """Fields, then properties and methods, also those of public bases of ours."""
    fields = {field.name: field for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    for field in fields.values():
        plain = field.default is dataclasses.MISSING or not field.repr
        yield f"- `{field.name}: {field.type}{'' if plain else f' = {field.default!r}'}`"
    ours = [base for base in reversed(kind.__mro__) if base.__module__.startswith("tidemill")]
    members = {name: value for base in ours for name, value in vars(base).items()}
    for name, value in members.items():
        if name in fields or name.startswith("_") or name == "retryable":
            continue
        if isinstance(value, property):
            yield f"- `{name}`: {first_sentence(value)}"
        elif isinstance(value, classmethod | staticmethod):
            yield f"- `{name}{signature(value.__func__)}`: {first_sentence(value)}"
        elif inspect.isfunction(value):
            prefix = "await " if inspect.iscoroutinefunction(value) else ""
            yield f"- `{prefix}{name}{signature(value)}`: {first_sentence(value)}"
    for name, annotation in inspect.get_annotations(kind).items():
        if name not in fields and not name.startswith("_") and name not in members:
            yield f"- `{name}: {annotation}`"


def signature(function: object) -> str:
    """A function's signature as it is written, without `self`."""
    found = inspect.signature(function)  # type: ignore[arg-type]
    parameters = [
        each.replace(annotation=each.annotation if each.annotation is each.empty else Raw(each.annotation))
        for each in found.parameters.values()
        if each.name not in {"self", "cls"}
    ]
    back = found.return_annotation
    return str(found.replace(parameters=parameters, return_annotation=back if back is found.empty else Raw(back)))


def first_sentence(value: object) -> str:
    """What a docstring begins with."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:;]) (?=[A-Za-z_]+:)|(?<=\.) (?=[A-Z`])", text)[0]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    FILE.write_text(reference(), encoding="utf-8")

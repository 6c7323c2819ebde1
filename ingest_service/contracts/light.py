"""Contracts without their rules: what a light client needs of them is shape alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from ingest_service.contracts.protoc import OPTIONS_FILE


def light_files(compiled: descriptor_pb2.FileDescriptorSet, files: Sequence[str]) -> descriptor_pb2.FileDescriptorSet:
    """The compiled files with every custom option, and the imports that only options need, taken out.

    files: those to strip; of the others only Google's own stay, as imports.
    """
    light = descriptor_pb2.FileDescriptorSet()
    for file in compiled.file:
        if file.name in files:
            _strip(light.file.add(), file)
        elif not _only_options(file.name):
            light.file.add().CopyFrom(file)
    return light


def _only_options(name: str) -> bool:
    return name.startswith(("buf/", "tidemill/")) or name == OPTIONS_FILE


def _strip(light: descriptor_pb2.FileDescriptorProto, file: descriptor_pb2.FileDescriptorProto) -> None:
    light.CopyFrom(file)
    kept = [index for index, name in enumerate(file.dependency) if not _only_options(name)]
    public = [kept.index(index) for index in file.public_dependency if index in kept]
    light.ClearField("source_code_info")
    light.ClearField("weak_dependency")
    light.dependency[:] = [file.dependency[index] for index in kept]
    light.public_dependency[:] = public
    for holder, options in _options(light):
        # An extension is known where its stub happens to be imported, else it is an unknown field.
        for field, _ in options.ListFields():
            if field.is_extension:
                options.ClearExtension(field)  # type: ignore[arg-type]
        options.DiscardUnknownFields()
        if not options.ListFields():
            holder.ClearField("options")


def _options(message: Message) -> Iterator[tuple[Message, Message]]:
    """All options in a file descriptor that are set, at any depth, each behind the descriptor that it belongs to."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in value if field.is_repeated else [value]:
            if field.name == "options":
                yield message, each
            else:
                yield from _options(each)

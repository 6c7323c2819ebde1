"""Where in its `.proto` file a message or field stands, and the comment above it."""

from __future__ import annotations

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

# Field numbers of descriptor.proto that make up a location's path.
_FILE_MESSAGE, _MESSAGE_FIELD, _MESSAGE_NESTED = 4, 2, 3

Path = tuple[int, ...]


class SourceInfo:
    """Lines and comments of one compiled file; immutable."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._file = file.name
        self._locations = {tuple(each.path): each for each in file.source_code_info.location}
        self._paths: dict[str, Path] = {}
        for index, message in enumerate(file.message_type):
            full_name = f"{file.package}.{message.name}" if file.package else message.name
            self._add(message, full_name, (_FILE_MESSAGE, index))

    def where(self, item: Descriptor | FieldDescriptor) -> str:
        """ "retail/v1/order_line.proto:12", or the file alone where the line is not known."""
        location = self._locations.get(self._paths[item.full_name])
        return f"{self._file}:{location.span[0] + 1}" if location else self._file

    def comment(self, item: Descriptor | FieldDescriptor) -> str:
        """The comment above it (or else behind it) on one line; empty where there is none."""
        location = self._locations.get(self._paths[item.full_name])
        if location is None:
            return ""
        return " ".join((location.leading_comments or location.trailing_comments).split())

    def _add(self, message: descriptor_pb2.DescriptorProto, full_name: str, path: Path) -> None:
        self._paths[full_name] = path
        for index, field in enumerate(message.field):
            self._paths[f"{full_name}.{field.name}"] = (*path, _MESSAGE_FIELD, index)
        for index, nested in enumerate(message.nested_type):
            self._add(nested, f"{full_name}.{nested.name}", (*path, _MESSAGE_NESTED, index))

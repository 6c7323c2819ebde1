import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidemill.v1 import append_pb2 as _append_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReadFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READ_FORMAT_UNSPECIFIED: _ClassVar[ReadFormat]
    READ_FORMAT_PROTO: _ClassVar[ReadFormat]
    READ_FORMAT_ARROW: _ClassVar[ReadFormat]
READ_FORMAT_UNSPECIFIED: ReadFormat
READ_FORMAT_PROTO: ReadFormat
READ_FORMAT_ARROW: ReadFormat

class ReadRequest(_message.Message):
    __slots__ = ("stream", "from_offset", "from_time", "from_end", "follow", "columns", "limit", "format")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    FROM_OFFSET_FIELD_NUMBER: _ClassVar[int]
    FROM_TIME_FIELD_NUMBER: _ClassVar[int]
    FROM_END_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    stream: str
    from_offset: int
    from_time: _timestamp_pb2.Timestamp
    from_end: bool
    follow: bool
    columns: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    format: ReadFormat
    def __init__(self, stream: _Optional[str] = ..., from_offset: _Optional[int] = ..., from_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., from_end: _Optional[bool] = ..., follow: _Optional[bool] = ..., columns: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., format: _Optional[_Union[ReadFormat, str]] = ...) -> None: ...

class ReadResponse(_message.Message):
    __slots__ = ("partition", "base_offset", "next_offset", "durable_offset", "proto", "arrow")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DURABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    PROTO_FIELD_NUMBER: _ClassVar[int]
    ARROW_FIELD_NUMBER: _ClassVar[int]
    partition: int
    base_offset: int
    next_offset: int
    durable_offset: int
    proto: _append_pb2.ProtoRows
    arrow: bytes
    def __init__(self, partition: _Optional[int] = ..., base_offset: _Optional[int] = ..., next_offset: _Optional[int] = ..., durable_offset: _Optional[int] = ..., proto: _Optional[_Union[_append_pb2.ProtoRows, _Mapping]] = ..., arrow: _Optional[bytes] = ...) -> None: ...

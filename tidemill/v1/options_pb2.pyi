from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
STREAM_FIELD_NUMBER: _ClassVar[int]
stream: _descriptor.FieldDescriptor
FIELD_FIELD_NUMBER: _ClassVar[int]
field: _descriptor.FieldDescriptor

class StreamOptions(_message.Message):
    __slots__ = ("name", "event_time", "event_id", "key", "version", "out_of_orderness_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_ORDERNESS_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    event_time: str
    event_id: str
    key: str
    version: int
    out_of_orderness_s: int
    def __init__(self, name: _Optional[str] = ..., event_time: _Optional[str] = ..., event_id: _Optional[str] = ..., key: _Optional[str] = ..., version: _Optional[int] = ..., out_of_orderness_s: _Optional[int] = ...) -> None: ...

class DecimalOptions(_message.Message):
    __slots__ = ("precision", "scale")
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    precision: int
    scale: int
    def __init__(self, precision: _Optional[int] = ..., scale: _Optional[int] = ...) -> None: ...

class FieldOptions(_message.Message):
    __slots__ = ("decimal", "personal")
    DECIMAL_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    decimal: DecimalOptions
    personal: bool
    def __init__(self, decimal: _Optional[_Union[DecimalOptions, _Mapping]] = ..., personal: _Optional[bool] = ...) -> None: ...

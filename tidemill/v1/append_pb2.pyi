import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_QUARANTINED: _ClassVar[Verdict]
    VERDICT_DUPLICATE: _ClassVar[Verdict]
    VERDICT_LATE: _ClassVar[Verdict]
VERDICT_UNSPECIFIED: Verdict
VERDICT_QUARANTINED: Verdict
VERDICT_DUPLICATE: Verdict
VERDICT_LATE: Verdict

class AppendRequest(_message.Message):
    __slots__ = ("stream", "producer_id", "sequence", "rows_sent", "proto", "arrow")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ROWS_SENT_FIELD_NUMBER: _ClassVar[int]
    PROTO_FIELD_NUMBER: _ClassVar[int]
    ARROW_FIELD_NUMBER: _ClassVar[int]
    stream: str
    producer_id: str
    sequence: int
    rows_sent: int
    proto: ProtoRows
    arrow: bytes
    def __init__(self, stream: _Optional[str] = ..., producer_id: _Optional[str] = ..., sequence: _Optional[int] = ..., rows_sent: _Optional[int] = ..., proto: _Optional[_Union[ProtoRows, _Mapping]] = ..., arrow: _Optional[bytes] = ...) -> None: ...

class ProtoRows(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, messages: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ("sequence", "partition", "base_offset", "rows_appended", "durable_offset", "replayed", "verdicts")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    BASE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    ROWS_APPENDED_FIELD_NUMBER: _ClassVar[int]
    DURABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    partition: int
    base_offset: int
    rows_appended: int
    durable_offset: int
    replayed: bool
    verdicts: _containers.RepeatedCompositeFieldContainer[RowVerdict]
    def __init__(self, sequence: _Optional[int] = ..., partition: _Optional[int] = ..., base_offset: _Optional[int] = ..., rows_appended: _Optional[int] = ..., durable_offset: _Optional[int] = ..., replayed: _Optional[bool] = ..., verdicts: _Optional[_Iterable[_Union[RowVerdict, _Mapping]]] = ...) -> None: ...

class GetProducerStateRequest(_message.Message):
    __slots__ = ("stream", "producer_id")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    stream: str
    producer_id: str
    def __init__(self, stream: _Optional[str] = ..., producer_id: _Optional[str] = ...) -> None: ...

class GetProducerStateResponse(_message.Message):
    __slots__ = ("known", "next_sequence", "last_response", "last_append_time", "rows_sent")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LAST_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    LAST_APPEND_TIME_FIELD_NUMBER: _ClassVar[int]
    ROWS_SENT_FIELD_NUMBER: _ClassVar[int]
    known: bool
    next_sequence: int
    last_response: AppendResponse
    last_append_time: _timestamp_pb2.Timestamp
    rows_sent: int
    def __init__(self, known: _Optional[bool] = ..., next_sequence: _Optional[int] = ..., last_response: _Optional[_Union[AppendResponse, _Mapping]] = ..., last_append_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rows_sent: _Optional[int] = ...) -> None: ...

class RowVerdict(_message.Message):
    __slots__ = ("index", "verdict", "rule", "field", "message")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    verdict: Verdict
    rule: str
    field: str
    message: str
    def __init__(self, index: _Optional[int] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., rule: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

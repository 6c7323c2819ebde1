import datetime

from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidemill.v1 import append_pb2 as _append_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListStreamsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListStreamsResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[StreamStatus]
    def __init__(self, streams: _Optional[_Iterable[_Union[StreamStatus, _Mapping]]] = ...) -> None: ...

class GetStreamRequest(_message.Message):
    __slots__ = ("stream",)
    STREAM_FIELD_NUMBER: _ClassVar[int]
    stream: str
    def __init__(self, stream: _Optional[str] = ...) -> None: ...

class GetStreamResponse(_message.Message):
    __slots__ = ("status", "message_type", "descriptors", "arrow_schema")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    ARROW_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    status: StreamStatus
    message_type: str
    descriptors: _descriptor_pb2.FileDescriptorSet
    arrow_schema: bytes
    def __init__(self, status: _Optional[_Union[StreamStatus, _Mapping]] = ..., message_type: _Optional[str] = ..., descriptors: _Optional[_Union[_descriptor_pb2.FileDescriptorSet, _Mapping]] = ..., arrow_schema: _Optional[bytes] = ...) -> None: ...

class StreamStatus(_message.Message):
    __slots__ = ("stream", "contract_version", "durable_offset", "lake_offset", "watermark", "counts", "seals", "lake_uri", "log_start_offset", "segments", "log_bytes", "lake_version", "rates", "error", "lake_error")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    DURABLE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAKE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SEALS_FIELD_NUMBER: _ClassVar[int]
    LAKE_URI_FIELD_NUMBER: _ClassVar[int]
    LOG_START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAKE_VERSION_FIELD_NUMBER: _ClassVar[int]
    RATES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LAKE_ERROR_FIELD_NUMBER: _ClassVar[int]
    stream: str
    contract_version: int
    durable_offset: int
    lake_offset: int
    watermark: _timestamp_pb2.Timestamp
    counts: Counts
    seals: _containers.RepeatedCompositeFieldContainer[Seal]
    lake_uri: str
    log_start_offset: int
    segments: int
    log_bytes: int
    lake_version: int
    rates: Rates
    error: str
    lake_error: str
    def __init__(self, stream: _Optional[str] = ..., contract_version: _Optional[int] = ..., durable_offset: _Optional[int] = ..., lake_offset: _Optional[int] = ..., watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., counts: _Optional[_Union[Counts, _Mapping]] = ..., seals: _Optional[_Iterable[_Union[Seal, _Mapping]]] = ..., lake_uri: _Optional[str] = ..., log_start_offset: _Optional[int] = ..., segments: _Optional[int] = ..., log_bytes: _Optional[int] = ..., lake_version: _Optional[int] = ..., rates: _Optional[_Union[Rates, _Mapping]] = ..., error: _Optional[str] = ..., lake_error: _Optional[str] = ...) -> None: ...

class Rates(_message.Message):
    __slots__ = ("rows_per_s_10s", "rows_per_s_1m", "rows_per_s_15m")
    ROWS_PER_S_10S_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_S_1M_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_S_15M_FIELD_NUMBER: _ClassVar[int]
    rows_per_s_10s: float
    rows_per_s_1m: float
    rows_per_s_15m: float
    def __init__(self, rows_per_s_10s: _Optional[float] = ..., rows_per_s_1m: _Optional[float] = ..., rows_per_s_15m: _Optional[float] = ...) -> None: ...

class Counts(_message.Message):
    __slots__ = ("sent", "received_counted", "received", "appended", "duplicate", "quarantined", "late", "appended_by_date")
    class AppendedByDateEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    SENT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_COUNTED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    APPENDED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    APPENDED_BY_DATE_FIELD_NUMBER: _ClassVar[int]
    sent: int
    received_counted: int
    received: int
    appended: int
    duplicate: int
    quarantined: int
    late: int
    appended_by_date: _containers.ScalarMap[str, int]
    def __init__(self, sent: _Optional[int] = ..., received_counted: _Optional[int] = ..., received: _Optional[int] = ..., appended: _Optional[int] = ..., duplicate: _Optional[int] = ..., quarantined: _Optional[int] = ..., late: _Optional[int] = ..., appended_by_date: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Seal(_message.Message):
    __slots__ = ("date", "last_date", "seal_offset", "sealed_at")
    DATE_FIELD_NUMBER: _ClassVar[int]
    LAST_DATE_FIELD_NUMBER: _ClassVar[int]
    SEAL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SEALED_AT_FIELD_NUMBER: _ClassVar[int]
    date: str
    last_date: str
    seal_offset: int
    sealed_at: _timestamp_pb2.Timestamp
    def __init__(self, date: _Optional[str] = ..., last_date: _Optional[str] = ..., seal_offset: _Optional[int] = ..., sealed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListQuarantineRequest(_message.Message):
    __slots__ = ("stream", "limit", "ids")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    stream: str
    limit: int
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, stream: _Optional[str] = ..., limit: _Optional[int] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ListQuarantineResponse(_message.Message):
    __slots__ = ("rows", "total")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[QuarantinedRow]
    total: int
    def __init__(self, rows: _Optional[_Iterable[_Union[QuarantinedRow, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class QuarantinedRow(_message.Message):
    __slots__ = ("at_offset", "append_time", "producer_id", "sequence", "verdict", "payload", "id", "replayed")
    AT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    APPEND_TIME_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    at_offset: int
    append_time: _timestamp_pb2.Timestamp
    producer_id: str
    sequence: int
    verdict: _append_pb2.RowVerdict
    payload: bytes
    id: str
    replayed: bool
    def __init__(self, at_offset: _Optional[int] = ..., append_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., producer_id: _Optional[str] = ..., sequence: _Optional[int] = ..., verdict: _Optional[_Union[_append_pb2.RowVerdict, _Mapping]] = ..., payload: _Optional[bytes] = ..., id: _Optional[str] = ..., replayed: _Optional[bool] = ...) -> None: ...

class ReplayQuarantineRequest(_message.Message):
    __slots__ = ("stream", "ids", "check_only")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    CHECK_ONLY_FIELD_NUMBER: _ClassVar[int]
    stream: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    check_only: bool
    def __init__(self, stream: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., check_only: _Optional[bool] = ...) -> None: ...

class ReplayQuarantineResponse(_message.Message):
    __slots__ = ("checked", "appended", "duplicate", "still_broken", "after_offset")
    CHECKED_FIELD_NUMBER: _ClassVar[int]
    APPENDED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    STILL_BROKEN_FIELD_NUMBER: _ClassVar[int]
    AFTER_OFFSET_FIELD_NUMBER: _ClassVar[int]
    checked: int
    appended: int
    duplicate: int
    still_broken: int
    after_offset: int
    def __init__(self, checked: _Optional[int] = ..., appended: _Optional[int] = ..., duplicate: _Optional[int] = ..., still_broken: _Optional[int] = ..., after_offset: _Optional[int] = ...) -> None: ...

class ApplyContractRequest(_message.Message):
    __slots__ = ("descriptors", "message_type", "check_only")
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    CHECK_ONLY_FIELD_NUMBER: _ClassVar[int]
    descriptors: _descriptor_pb2.FileDescriptorSet
    message_type: str
    check_only: bool
    def __init__(self, descriptors: _Optional[_Union[_descriptor_pb2.FileDescriptorSet, _Mapping]] = ..., message_type: _Optional[str] = ..., check_only: _Optional[bool] = ...) -> None: ...

class ApplyContractResponse(_message.Message):
    __slots__ = ("contracts",)
    CONTRACTS_FIELD_NUMBER: _ClassVar[int]
    contracts: _containers.RepeatedCompositeFieldContainer[AppliedContract]
    def __init__(self, contracts: _Optional[_Iterable[_Union[AppliedContract, _Mapping]]] = ...) -> None: ...

class AppliedContract(_message.Message):
    __slots__ = ("stream", "version", "applied", "changes")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    stream: str
    version: int
    applied: bool
    changes: _containers.RepeatedCompositeFieldContainer[ContractChange]
    def __init__(self, stream: _Optional[str] = ..., version: _Optional[int] = ..., applied: _Optional[bool] = ..., changes: _Optional[_Iterable[_Union[ContractChange, _Mapping]]] = ...) -> None: ...

class ContractChange(_message.Message):
    __slots__ = ("field", "compatible", "message")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    COMPATIBLE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    field: str
    compatible: bool
    message: str
    def __init__(self, field: _Optional[str] = ..., compatible: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class SealDateRequest(_message.Message):
    __slots__ = ("stream", "date", "last_date", "force")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATE_FIELD_NUMBER: _ClassVar[int]
    LAST_DATE_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    stream: str
    date: str
    last_date: str
    force: bool
    def __init__(self, stream: _Optional[str] = ..., date: _Optional[str] = ..., last_date: _Optional[str] = ..., force: _Optional[bool] = ...) -> None: ...

class SealDateResponse(_message.Message):
    __slots__ = ("seal",)
    SEAL_FIELD_NUMBER: _ClassVar[int]
    seal: Seal
    def __init__(self, seal: _Optional[_Union[Seal, _Mapping]] = ...) -> None: ...

class ExportLakeRequest(_message.Message):
    __slots__ = ("stream", "up_to_offset")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    UP_TO_OFFSET_FIELD_NUMBER: _ClassVar[int]
    stream: str
    up_to_offset: int
    def __init__(self, stream: _Optional[str] = ..., up_to_offset: _Optional[int] = ...) -> None: ...

class ExportLakeResponse(_message.Message):
    __slots__ = ("lake_version", "lake_offset", "lake_uri")
    LAKE_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAKE_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAKE_URI_FIELD_NUMBER: _ClassVar[int]
    lake_version: int
    lake_offset: int
    lake_uri: str
    def __init__(self, lake_version: _Optional[int] = ..., lake_offset: _Optional[int] = ..., lake_uri: _Optional[str] = ...) -> None: ...

class MaintainLakeRequest(_message.Message):
    __slots__ = ("stream", "dates", "compact_only", "keep_versions", "min_age_s")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATES_FIELD_NUMBER: _ClassVar[int]
    COMPACT_ONLY_FIELD_NUMBER: _ClassVar[int]
    KEEP_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MIN_AGE_S_FIELD_NUMBER: _ClassVar[int]
    stream: str
    dates: _containers.RepeatedScalarFieldContainer[str]
    compact_only: bool
    keep_versions: _containers.RepeatedScalarFieldContainer[int]
    min_age_s: int
    def __init__(self, stream: _Optional[str] = ..., dates: _Optional[_Iterable[str]] = ..., compact_only: _Optional[bool] = ..., keep_versions: _Optional[_Iterable[int]] = ..., min_age_s: _Optional[int] = ...) -> None: ...

class MaintainLakeResponse(_message.Message):
    __slots__ = ("lake_version", "compacted_dates", "deleted_files", "deleted_log_files", "freed_bytes", "files", "bytes", "kept_files", "kept_bytes", "missing_versions")
    LAKE_VERSION_FIELD_NUMBER: _ClassVar[int]
    COMPACTED_DATES_FIELD_NUMBER: _ClassVar[int]
    DELETED_FILES_FIELD_NUMBER: _ClassVar[int]
    DELETED_LOG_FILES_FIELD_NUMBER: _ClassVar[int]
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    KEPT_FILES_FIELD_NUMBER: _ClassVar[int]
    KEPT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MISSING_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    lake_version: int
    compacted_dates: _containers.RepeatedScalarFieldContainer[str]
    deleted_files: int
    deleted_log_files: int
    freed_bytes: int
    files: int
    bytes: int
    kept_files: int
    kept_bytes: int
    missing_versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, lake_version: _Optional[int] = ..., compacted_dates: _Optional[_Iterable[str]] = ..., deleted_files: _Optional[int] = ..., deleted_log_files: _Optional[int] = ..., freed_bytes: _Optional[int] = ..., files: _Optional[int] = ..., bytes: _Optional[int] = ..., kept_files: _Optional[int] = ..., kept_bytes: _Optional[int] = ..., missing_versions: _Optional[_Iterable[int]] = ...) -> None: ...

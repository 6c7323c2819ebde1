import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ViewState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VIEW_STATE_UNSPECIFIED: _ClassVar[ViewState]
    VIEW_STATE_FOLLOWING: _ClassVar[ViewState]
    VIEW_STATE_REBUILDING: _ClassVar[ViewState]
    VIEW_STATE_STOPPED: _ClassVar[ViewState]
    VIEW_STATE_REFUSED: _ClassVar[ViewState]

class RowFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROW_FORMAT_UNSPECIFIED: _ClassVar[RowFormat]
    ROW_FORMAT_VALUES: _ClassVar[RowFormat]
    ROW_FORMAT_ARROW: _ClassVar[RowFormat]
VIEW_STATE_UNSPECIFIED: ViewState
VIEW_STATE_FOLLOWING: ViewState
VIEW_STATE_REBUILDING: ViewState
VIEW_STATE_STOPPED: ViewState
VIEW_STATE_REFUSED: ViewState
ROW_FORMAT_UNSPECIFIED: RowFormat
ROW_FORMAT_VALUES: RowFormat
ROW_FORMAT_ARROW: RowFormat

class ListViewsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListViewsResponse(_message.Message):
    __slots__ = ("views",)
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    views: _containers.RepeatedCompositeFieldContainer[ViewStatus]
    def __init__(self, views: _Optional[_Iterable[_Union[ViewStatus, _Mapping]]] = ...) -> None: ...

class ViewStatus(_message.Message):
    __slots__ = ("view", "stream", "offset", "lag", "rows", "group_columns", "window_column", "error", "definition_hash", "columns", "state", "lag_ms", "watermark", "retain_s", "expired_before", "rebuild_offset", "sql", "bounds_sql")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    GROUP_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_COLUMN_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DEFINITION_HASH_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    RETAIN_S_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    REBUILD_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SQL_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_SQL_FIELD_NUMBER: _ClassVar[int]
    view: str
    stream: str
    offset: int
    lag: int
    rows: int
    group_columns: _containers.RepeatedScalarFieldContainer[str]
    window_column: str
    error: str
    definition_hash: str
    columns: _containers.RepeatedCompositeFieldContainer[ViewColumn]
    state: ViewState
    lag_ms: int
    watermark: _timestamp_pb2.Timestamp
    retain_s: int
    expired_before: _timestamp_pb2.Timestamp
    rebuild_offset: int
    sql: str
    bounds_sql: str
    def __init__(self, view: _Optional[str] = ..., stream: _Optional[str] = ..., offset: _Optional[int] = ..., lag: _Optional[int] = ..., rows: _Optional[int] = ..., group_columns: _Optional[_Iterable[str]] = ..., window_column: _Optional[str] = ..., error: _Optional[str] = ..., definition_hash: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[ViewColumn, _Mapping]]] = ..., state: _Optional[_Union[ViewState, str]] = ..., lag_ms: _Optional[int] = ..., watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., retain_s: _Optional[int] = ..., expired_before: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rebuild_offset: _Optional[int] = ..., sql: _Optional[str] = ..., bounds_sql: _Optional[str] = ...) -> None: ...

class ViewColumn(_message.Message):
    __slots__ = ("name", "type", "exact", "relative_tolerance", "rank_error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    RANK_ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: str
    exact: bool
    relative_tolerance: float
    rank_error: float
    def __init__(self, name: _Optional[str] = ..., type: _Optional[str] = ..., exact: _Optional[bool] = ..., relative_tolerance: _Optional[float] = ..., rank_error: _Optional[float] = ...) -> None: ...

class QueryViewRequest(_message.Message):
    __slots__ = ("view", "filters", "order_by", "limit", "after_offset", "wait_ms", "sealed_date", "sealed_last_date", "seal_offset", "format", "window_state", "across_time")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    AFTER_OFFSET_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    SEALED_DATE_FIELD_NUMBER: _ClassVar[int]
    SEALED_LAST_DATE_FIELD_NUMBER: _ClassVar[int]
    SEAL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_STATE_FIELD_NUMBER: _ClassVar[int]
    ACROSS_TIME_FIELD_NUMBER: _ClassVar[int]
    view: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    order_by: _containers.RepeatedScalarFieldContainer[str]
    limit: int
    after_offset: int
    wait_ms: int
    sealed_date: str
    sealed_last_date: str
    seal_offset: int
    format: RowFormat
    window_state: bool
    across_time: bool
    def __init__(self, view: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., order_by: _Optional[_Iterable[str]] = ..., limit: _Optional[int] = ..., after_offset: _Optional[int] = ..., wait_ms: _Optional[int] = ..., sealed_date: _Optional[str] = ..., sealed_last_date: _Optional[str] = ..., seal_offset: _Optional[int] = ..., format: _Optional[_Union[RowFormat, str]] = ..., window_state: _Optional[bool] = ..., across_time: _Optional[bool] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("column", "operator", "value")
    class Operator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OPERATOR_UNSPECIFIED: _ClassVar[Filter.Operator]
        OPERATOR_EQUAL: _ClassVar[Filter.Operator]
        OPERATOR_NOT_EQUAL: _ClassVar[Filter.Operator]
        OPERATOR_LESS: _ClassVar[Filter.Operator]
        OPERATOR_LESS_OR_EQUAL: _ClassVar[Filter.Operator]
        OPERATOR_GREATER: _ClassVar[Filter.Operator]
        OPERATOR_GREATER_OR_EQUAL: _ClassVar[Filter.Operator]
    OPERATOR_UNSPECIFIED: Filter.Operator
    OPERATOR_EQUAL: Filter.Operator
    OPERATOR_NOT_EQUAL: Filter.Operator
    OPERATOR_LESS: Filter.Operator
    OPERATOR_LESS_OR_EQUAL: Filter.Operator
    OPERATOR_GREATER: Filter.Operator
    OPERATOR_GREATER_OR_EQUAL: Filter.Operator
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    column: str
    operator: Filter.Operator
    value: str
    def __init__(self, column: _Optional[str] = ..., operator: _Optional[_Union[Filter.Operator, str]] = ..., value: _Optional[str] = ...) -> None: ...

class QueryViewResponse(_message.Message):
    __slots__ = ("columns", "values", "arrow", "offset", "watermark", "published_at", "batch_dates", "last_batch_date", "stale_dates")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ARROW_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_AT_FIELD_NUMBER: _ClassVar[int]
    BATCH_DATES_FIELD_NUMBER: _ClassVar[int]
    LAST_BATCH_DATE_FIELD_NUMBER: _ClassVar[int]
    STALE_DATES_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[ViewColumn]
    values: _containers.RepeatedCompositeFieldContainer[_struct_pb2.ListValue]
    arrow: bytes
    offset: int
    watermark: _timestamp_pb2.Timestamp
    published_at: _timestamp_pb2.Timestamp
    batch_dates: int
    last_batch_date: str
    stale_dates: int
    def __init__(self, columns: _Optional[_Iterable[_Union[ViewColumn, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[_struct_pb2.ListValue, _Mapping]]] = ..., arrow: _Optional[bytes] = ..., offset: _Optional[int] = ..., watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., published_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., batch_dates: _Optional[int] = ..., last_batch_date: _Optional[str] = ..., stale_dates: _Optional[int] = ...) -> None: ...

class WatchViewRequest(_message.Message):
    __slots__ = ("view", "filters", "resume", "only_new", "format")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    ONLY_NEW_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    view: str
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    resume: str
    only_new: bool
    format: RowFormat
    def __init__(self, view: _Optional[str] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., resume: _Optional[str] = ..., only_new: _Optional[bool] = ..., format: _Optional[_Union[RowFormat, str]] = ...) -> None: ...

class WatchViewResponse(_message.Message):
    __slots__ = ("columns", "values", "arrow", "offset", "resume", "reset")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    ARROW_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[ViewColumn]
    values: _containers.RepeatedCompositeFieldContainer[_struct_pb2.ListValue]
    arrow: bytes
    offset: int
    resume: str
    reset: bool
    def __init__(self, columns: _Optional[_Iterable[_Union[ViewColumn, _Mapping]]] = ..., values: _Optional[_Iterable[_Union[_struct_pb2.ListValue, _Mapping]]] = ..., arrow: _Optional[bytes] = ..., offset: _Optional[int] = ..., resume: _Optional[str] = ..., reset: _Optional[bool] = ...) -> None: ...

class ApplyViewsRequest(_message.Message):
    __slots__ = ("manifest", "check_only")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    CHECK_ONLY_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    check_only: bool
    def __init__(self, manifest: _Optional[bytes] = ..., check_only: _Optional[bool] = ...) -> None: ...

class ApplyViewsResponse(_message.Message):
    __slots__ = ("views",)
    VIEWS_FIELD_NUMBER: _ClassVar[int]
    views: _containers.RepeatedCompositeFieldContainer[AppliedView]
    def __init__(self, views: _Optional[_Iterable[_Union[AppliedView, _Mapping]]] = ...) -> None: ...

class AppliedView(_message.Message):
    __slots__ = ("view", "change", "problem")
    class Change(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CHANGE_UNSPECIFIED: _ClassVar[AppliedView.Change]
        CHANGE_ADDED: _ClassVar[AppliedView.Change]
        CHANGE_CHANGED: _ClassVar[AppliedView.Change]
        CHANGE_SAME: _ClassVar[AppliedView.Change]
        CHANGE_REMOVED: _ClassVar[AppliedView.Change]
        CHANGE_REFUSED: _ClassVar[AppliedView.Change]
    CHANGE_UNSPECIFIED: AppliedView.Change
    CHANGE_ADDED: AppliedView.Change
    CHANGE_CHANGED: AppliedView.Change
    CHANGE_SAME: AppliedView.Change
    CHANGE_REMOVED: AppliedView.Change
    CHANGE_REFUSED: AppliedView.Change
    VIEW_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    view: str
    change: AppliedView.Change
    problem: str
    def __init__(self, view: _Optional[str] = ..., change: _Optional[_Union[AppliedView.Change, str]] = ..., problem: _Optional[str] = ...) -> None: ...

class RebuildViewRequest(_message.Message):
    __slots__ = ("view",)
    VIEW_FIELD_NUMBER: _ClassVar[int]
    view: str
    def __init__(self, view: _Optional[str] = ...) -> None: ...

class RebuildViewResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ConfirmReconciledRequest(_message.Message):
    __slots__ = ("view", "first_date", "last_date", "seal_offset")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    FIRST_DATE_FIELD_NUMBER: _ClassVar[int]
    LAST_DATE_FIELD_NUMBER: _ClassVar[int]
    SEAL_OFFSET_FIELD_NUMBER: _ClassVar[int]
    view: str
    first_date: str
    last_date: str
    seal_offset: int
    def __init__(self, view: _Optional[str] = ..., first_date: _Optional[str] = ..., last_date: _Optional[str] = ..., seal_offset: _Optional[int] = ...) -> None: ...

class ConfirmReconciledResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

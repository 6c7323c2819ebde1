"""What becomes of a folder of .proto files: contracts, and problems that name the file, the line and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from google.protobuf import descriptor_pb2

from ingest_service.contracts import Contract, LoadedContracts, load_contracts
from ingest_service.errors import ConfigError

Load = Callable[..., LoadedContracts]
Text = Callable[..., str]

AT = "google.protobuf.Timestamp at = 1 [(buf.validate.field).required = true];"
GOOD = (
    'message Good { option (tidemill.v1.stream) = { name: "good" event_time: "at" }; '
    "google.protobuf.Timestamp at = 1; }"
)


def thing(fields: str = "", *, stream: str = 'name: "things" event_time: "at"', at: str = AT) -> str:
    """A message that is a contract, all of it on one line."""
    return f"message T {{ option (tidemill.v1.stream) = {{ {stream} }}; {at} {fields} }}"


def decimal(options: str, kind: str = "string") -> str:
    return f"{kind} n = 2 [(tidemill.v1.field).decimal = {{ {options} }}];"


def test_the_retail_contract(contract: Contract) -> None:
    utc = pa.timestamp("us", tz="UTC")
    assert contract.schema == pa.schema(
        [
            pa.field("event_id", pa.string(), nullable=False),
            pa.field("invoice_no", pa.string(), nullable=False),
            pa.field("stock_code", pa.string(), nullable=False),
            pa.field("description", pa.string()),
            pa.field("quantity", pa.int64(), nullable=False),
            pa.field("unit_price", pa.decimal128(12, 3), nullable=False),
            pa.field("invoiced_at", utc, nullable=False),
            pa.field("customer_id", pa.int64()),
            pa.field("country", pa.string(), nullable=False),
        ]
    )
    assert (contract.stream, contract.message_type, contract.version) == ("order_lines", "retail.v1.OrderLine", 1)
    assert (contract.event_time, contract.event_id, contract.key) == ("invoiced_at", "event_id", "invoice_no")
    assert contract.columns[1].doc == 'Number of the invoice; "C" in front marks a cancellation, "A" an adjustment.'
    assert [column.name for column in contract.columns if column.personal] == ["customer_id"]
    assert contract.doc.startswith("One line of a shop's invoice: an article, how many of it, and at what price. One")
    spec = contract.log_spec()
    assert (spec.stream, spec.event_id, spec.out_of_orderness_s) == ("order_lines", "event_id", 3600)


def test_descriptors_are_whole_and_imports_come_first(contract: Contract) -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(contract.descriptor_set).file
    assert files[-1].name == "retail/v1/order_line.proto"
    seen: set[str] = set()
    for file in files:
        assert not file.HasField("source_code_info")
        assert set(file.dependency) <= seen
        seen.add(file.name)


def test_every_field_type_has_its_column(load: Load, proto_text: Text) -> None:
    loaded = load(
        things=proto_text(
            """enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; }
            message Thing { option (tidemill.v1.stream) = { name: "things" event_time: "at" };
              google.protobuf.Timestamp at = 1;
              int32 a = 2; sint64 b = 3; uint32 c = 4; fixed64 d = 5; float e = 6; double f = 7; bool g = 8;
              bytes h = 9; Kind i = 10; optional google.protobuf.Timestamp j = 11; optional string k = 12;
              google.protobuf.Timestamp l = 13;
              string m = 14 [(tidemill.v1.field).decimal = { precision: 38 scale: 38 }];
            }"""
        )
    )
    assert loaded.problems == ()
    schema = loaded.contracts["things"].schema
    utc = pa.timestamp("us", tz="UTC")
    assert schema.types == [
        utc, pa.int32(), pa.int64(), pa.int64(), pa.decimal128(20, 0), pa.float32(), pa.float64(), pa.bool_(),
        pa.binary(), pa.int32(), utc, pa.string(), utc, pa.decimal128(38, 38),
    ]  # fmt: skip
    assert [field.name for field in schema if field.nullable] == ["j", "k", "l"]
    assert loaded.contracts["things"].out_of_orderness_s == 3600
    assert (loaded.contracts["things"].version, loaded.contracts["things"].event_id) == (1, None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (thing(stream='name: "Things" event_time: "at"'), ["'Things'", "lower case letters"]),
        (thing(stream=f'name: "{"x" * 64}" event_time: "at"'), ["up to 63"]),
        (thing(stream='name: "things"'), ["does not say when", "event_time:"]),
        (thing(stream='name: "things" event_time: "when"'), ["'when'", "its fields are at"]),
        (thing(at="string at = 1;"), ["of type string", "expected a google.protobuf.Timestamp"]),
        (thing("int64 n = 2;", stream='name: "t" event_time: "at" event_id: "n"'), ["of type int64", "string"]),
        (thing(decimal("precision: 3"), stream='name: "t" event_time: "at" event_id: "n"'), ["expected a string"]),
        (thing(stream='name: "t" event_time: "at" event_id: "n"'), ["no field of that name"]),
        (thing(stream='name: "t" event_time: "at" key: "n"'), ["`key: 'n'`"]),
        (thing("repeated string n = 2;", stream='name: "t" event_time: "at" event_id: "n"'), ["which is repeated"]),
        (thing(at="repeated google.protobuf.Timestamp at = 1;"), ["which is repeated", "expected a google.protobuf.T"]),
        (thing("google.protobuf.Timestamp at2 = 2; T n = 3;"), ["shop.v1.T.n cannot", "shop.v1.T holds itself"]),
        (thing("repeated U n = 3;") + "message U { V v = 1; } message V { map<string, U> u = 1; }", ["U holds itself"]),
        (thing("U n = 2;") + "message U {}", ["shop.v1.U has no fields", "leave the field out"]),
        (thing("U n = 2;") + "message U { int32 a = 1; int32 A = 2; }", ["shop.v1.U.A and a differ only by case"]),
        (thing("repeated U n = 2;") + f"message U {{ {decimal('precision: 39')} }}", ["shop.v1.U.n", "precision 39"]),
        (thing("U n = 2;") + "message U { string s = 1 [(buf.validate.field).int64.gt = 1]; }", ["buf.validate rules"]),
        (thing("string event_date = 2;"), ["shop.v1.T.event_date is Tidemill's"]),
        (thing("string _x = 2;"), ["underscore in front"]),
        (thing("string n = 2; string N = 3;"), ["differ only by case"]),
        (thing(decimal("precision: 3", "int64")), ["for string fields"]),
        (thing(decimal("precision: 39")), ["precision 39", "1 to 38"]),
        (thing(decimal("precision: 2 scale: 3")), ["scale 3"]),
        (thing(decimal("")), ["precision 0"]),
        (thing("int64 n = 2 [(buf.validate.field).string.min_len = 1];"), ["buf.validate rules"]),
        (thing("string n = 2 [(buf.validate.field).string.pattern = '('];"), ["buf.validate rules"]),
    ],
)
def test_a_wrong_contract_is_a_problem_that_says_what_to_do(
    load: Load, proto_text: Text, body: str, expected: list[str]
) -> None:
    loaded = load(things=proto_text(body), good=proto_text(GOOD, "good.v1"))
    assert list(loaded.contracts) == ["good"]
    assert [problem.file for problem in loaded.problems] == ["things.proto"]
    text = loaded.problems[0].text
    assert text.startswith("things.proto:6: "), text
    for part in expected:
        assert part in text


def test_a_file_that_does_not_compile_names_line_and_reason(load: Load, proto_text: Text) -> None:
    loaded = load(bad=proto_text("message T {\n  strin n = 1;\n}"), good=proto_text(GOOD), needs='import "bad.proto";')
    assert list(loaded.contracts) == ["good"]
    assert [problem.file for problem in loaded.problems] == ["bad.proto", "needs.proto"]
    assert 'bad.proto:7:3: "strin" is not defined.' in loaded.problems[0].text


def test_only_proto3_makes_a_contract(load: Load, proto_text: Text) -> None:
    old = GOOD.replace("google.protobuf.Timestamp at", "optional google.protobuf.Timestamp at")
    loaded = load(old=proto_text(old).replace("proto3", "proto2"))
    assert loaded.contracts == {}
    assert 'expected `syntax = "proto3";`' in loaded.problems[0].text


def test_what_no_column_can_hold_is_refused_also_from_other_files(load: Load, proto_text: Text) -> None:
    imports = 'import "old.proto"; import "date.proto"; import "google/protobuf/struct.proto";'
    fields = ["old.v1.Old n = 2;", "repeated google.type.Date n = 2;", "map<string, google.protobuf.Struct> n = 2;"]
    streams = [f'name: "s{index}" event_time: "at"' for index in range(len(fields))]
    files = {
        f"s{index}": proto_text(imports + thing(field, stream=stream), f"s{index}.v1")
        for index, (field, stream) in enumerate(zip(fields, streams, strict=True))
    }
    loaded = load(
        old='syntax = "proto2"; package old.v1; message Old { required int32 a = 1; }',
        date='syntax = "proto3"; package google.type; message Date { int32 year = 1; }',
        **files,
    )
    assert loaded.contracts == {}
    why = ["old.v1.Old is not written in proto3", "google.type.Date may lack its year", "Struct holds itself"]
    for problem, expected in zip(loaded.problems, why, strict=True):
        assert expected in problem.text
        assert "leave the field out" in problem.text


def test_two_claims_to_a_stream_name_both_fail(load: Load, proto_text: Text) -> None:
    loaded = load(a=proto_text(GOOD, "a.v1"), b=proto_text(GOOD, "b.v1"), c=proto_text(GOOD.replace('"good"', '"c"')))
    assert list(loaded.contracts) == ["c"]
    assert [problem.file for problem in loaded.problems] == ["a.proto", "b.proto"]
    assert "claims the stream name 'good', and so does b.v1.Good (b.proto)" in loaded.problems[0].text


def test_files_without_a_stream_are_no_contracts(load: Load) -> None:
    loaded = load(plain='syntax = "proto3"; message Plain { repeated string names = 1; }')
    assert loaded == LoadedContracts({}, ())


def test_nested_messages_can_be_contracts(load: Load, proto_text: Text) -> None:
    loaded = load(outer=proto_text(f"message Outer {{ {GOOD} }}"))
    assert loaded.contracts["good"].message_type == "shop.v1.Outer.Good"


def test_the_hash_follows_content_not_comments(load: Load, proto_text: Text) -> None:
    first = load(good=proto_text(GOOD)).contracts["good"].content_hash
    assert load(good=proto_text(f"// A comment.\n{GOOD}")).contracts["good"].content_hash == first
    changed = load(good=proto_text(GOOD.replace(" }; google", " version: 2 }; google"))).contracts["good"]
    assert changed.content_hash != first


def test_an_absent_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a folder with \.proto files at .*nowhere"):
        load_contracts(tmp_path / "nowhere")
    assert load_contracts(tmp_path) == LoadedContracts({}, ())

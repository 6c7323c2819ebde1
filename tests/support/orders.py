"""A contract with a field of every kind that there is, to be put behind `proto_text`'s or `ORDER_PROTO`'s head."""

ORDER = """import "google/protobuf/duration.proto"; import "google/protobuf/wrappers.proto";
import "google/protobuf/any.proto";
enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; }
message Line {
  string sku = 1 [(buf.validate.field).string.min_len = 1];
  string price = 9 [(tidemill.v1.field).decimal = { precision: 12 scale: 3 }];
  optional uint32 pieces = 3;
  repeated google.protobuf.Timestamp packed_at = 4;
  map<string, uint64> codes = 5;
  oneof gift { string card = 6; Wrapping wrapping = 7; }
}
message Wrapping {
  Kind kind = 1;
  google.protobuf.Duration takes = 2;
  string select = 3 [(tidemill.v1.field).personal = true];
}
message Order {
  option (tidemill.v1.stream) = { name: "orders" event_time: "at" event_id: "id" };
  google.protobuf.Timestamp at = 1;
  string id = 2;
  oneof payer { string account = 3; Wrapping cash = 4; uint64 token = 5; }
  google.protobuf.Int64Value points = 6;
  google.protobuf.UInt64Value credit = 7;
  google.protobuf.StringValue note = 8;
  google.protobuf.BoolValue express = 9;
  repeated int32 numbers = 10;
  repeated string tags = 11 [(buf.validate.field).repeated.max_items = 5];
  repeated uint64 big = 12;
  repeated Kind kinds = 13;
  repeated Line lines = 14;
  Line best = 15;
  // How long it took.
  google.protobuf.Duration took = 16;
  repeated google.protobuf.Duration laps = 17;
  map<string, string> labels = 18;
  map<int32, Line> by_shelf = 19;
  map<bool, Kind> flags = 20;
  google.protobuf.Any extra = 21;
  repeated string amounts = 22 [(tidemill.v1.field).decimal = { precision: 9 scale: 8 }];
  repeated bytes blobs = 23;
  repeated google.protobuf.DoubleValue measures = 24;
  map<int32, Wrapping> wrappings = 25;
}"""

ORDER_PROTO = f"""syntax = "proto3";
package shop.v1;
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "tidemill/v1/options.proto";
{ORDER}
"""

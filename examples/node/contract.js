// The service's API and the event's class, from the .proto files alone: nothing is generated beforehand.

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import protobuf from "protobufjs";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const PROTO = fileURLToPath(new URL("../../proto", import.meta.url));
const READ = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };

/** The gRPC clients' classes: `AppendService`, `ReadService`. */
export const tidemill = grpc.loadPackageDefinition(
  loadSync(["tidemill/v1/append.proto", "tidemill/v1/read.proto"], { ...READ, includeDirs: [PROTO] }),
).tidemill.v1;

/** The class of the stream's events. */
export const OrderLine = event("retail/v1/order_line.proto", "retail.v1.OrderLine");

function event(file, name) {
  const root = new protobuf.Root();
  const resolve = root.resolvePath.bind(root);
  root.resolvePath = (origin, target) => {
    const path = join(PROTO, target);
    if (existsSync(path)) return path;
    // The rules are the service's to check: a client does without buf/validate.
    return target.startsWith("buf/") ? null : resolve(origin, target);
  };
  root.loadSync(join(PROTO, file), { keepCase: true });
  return root.lookupType(name);
}

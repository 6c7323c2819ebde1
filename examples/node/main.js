// node main.js [--address HOST:PORT] [--rows N] [--batch N] [--producer ID] [--read N]
// Sends order lines, prints what became of them, and reads the last ones back. Started again with the same --producer
// it goes on where it stopped.

import grpc from "@grpc/grpc-js";
import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { OrderLine, tidemill } from "./contract.js";
import { Producer } from "./producer.js";

const { values: options } = parseArgs({
  options: {
    address: { type: "string", default: process.env.TIDEMILL_ADDRESS ?? "localhost:7433" },
    rows: { type: "string", default: "10" },
    batch: { type: "string", default: "100" },
    producer: { type: "string", default: randomUUID() },
    read: { type: "string", default: "3" },
  },
});

function orderLine(number) {
  const fields = {
    event_id: `${options.producer}-${number}`,
    invoice_no: "536365",
    stock_code: "22423",
    quantity: number + 1,
    unit_price: "12.75", // a decimal: text, never a float
    invoiced_at: { seconds: Math.floor(Date.now() / 1000), nanos: 0 },
    country: "France",
  };
  return OrderLine.encode(OrderLine.fromObject(fields)).finish();
}

function* batches(first, rows, size) {
  for (let start = first; start < rows; start += size) {
    const end = Math.min(rows, start + size);
    yield Array.from({ length: end - start }, (_, index) => orderLine(start + index));
  }
}

async function read(client, from) {
  const call = client.Read({ stream: "order_lines", from_offset: from });
  for await (const response of call) {
    response.proto?.messages.forEach((bytes, index) => {
      const row = OrderLine.toObject(OrderLine.decode(bytes), { longs: Number });
      console.log(`offset ${response.base_offset + index}: ${row.event_id}, ${row.quantity} x ${row.unit_price}`);
    });
  }
}

const insecure = grpc.credentials.createInsecure();
const producer = new Producer(new tidemill.AppendService(options.address, insecure), "order_lines", options.producer);
const before = await producer.resume();
if (before) console.log(`${before} rows were sent before, under this producer id`);

const total = { appended: 0, duplicate: 0, quarantined: 0, replayed: 0 };
let end = 0;
await producer.send(batches(before, Number(options.rows), Number(options.batch)), (response) => {
  total.appended += response.rows_appended;
  total.replayed += response.replayed ? 1 : 0;
  for (const { verdict, field, message } of response.verdicts) {
    if (verdict === "VERDICT_DUPLICATE") total.duplicate += 1;
    if (verdict !== "VERDICT_QUARANTINED") continue;
    total.quarantined += 1;
    console.log(`quarantined: ${field}: ${message}`);
  }
  end = response.base_offset + response.rows_appended;
});
console.log(`acknowledged: ${JSON.stringify(total)}`);
await read(new tidemill.ReadService(options.address, insecure), Math.max(0, end - Number(options.read)));

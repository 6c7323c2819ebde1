// Delivers batches exactly once: each has its number, and one that was not acknowledged is sent again under the same.

import grpc from "@grpc/grpc-js";
import { setTimeout as sleep } from "node:timers/promises";

// docs/reference/errors.md says of every status whether a retry helps.
const RETRY = new Set([grpc.status.UNAVAILABLE, grpc.status.ABORTED, grpc.status.CANCELLED,
  grpc.status.DEADLINE_EXCEEDED, grpc.status.RESOURCE_EXHAUSTED]);
const IN_FLIGHT = 64;
const RETRY_FOR_MS = 60_000;

export class Producer {
  /** client: an AppendService; id: this producer's name, kept for its whole life. */
  constructor(client, stream, id) {
    Object.assign(this, { client, stream, id, nextSequence: 0, rowsSent: 0 });
  }

  /** Goes on where an earlier run under this id stopped; gives how many rows that had sent. */
  async resume() {
    const request = { stream: this.stream, producer_id: this.id };
    const state = await new Promise((resolve, reject) =>
      this.client.GetProducerState(request, (error, answer) => (error ? reject(error) : resolve(answer))));
    this.nextSequence = state.next_sequence;
    this.rowsSent = state.rows_sent;
    return state.rows_sent;
  }

  /** Sends batches (arrays of serialized events) in order, and calls `acknowledged` with each one's response. */
  async send(batches, acknowledged) {
    const source = batches[Symbol.iterator]();
    const waiting = []; // numbered, not acknowledged: what a new call begins with
    let done = false;
    let failingSince = 0;
    const next = () => {
      const item = source.next();
      if (item.done) return (done = true), null;
      this.rowsSent += item.value.length;
      const request = { stream: this.stream, producer_id: this.id, sequence: this.nextSequence++,
        rows_sent: this.rowsSent, proto: { messages: item.value } };
      waiting.push(request);
      return request;
    };
    while (!done || waiting.length) {
      try {
        await this.#call(waiting, next, (response) => {
          waiting.shift();
          failingSince = 0;
          acknowledged(response);
        });
      } catch (error) {
        failingSince ||= Date.now();
        if (!RETRY.has(error.code) || Date.now() - failingSince > RETRY_FOR_MS) throw error;
        await sleep(50 + Math.random() * 200);
      }
    }
  }

  /** One call: what waits goes first, then new batches as fast as responses come. */
  #call(waiting, next, acknowledged) {
    return new Promise((resolve, reject) => {
      const call = this.client.Append();
      let unanswered = 0;
      let ended = false;
      const fill = () => {
        while (unanswered < IN_FLIGHT && !ended) {
          const request = unanswered < waiting.length ? waiting[unanswered] : next();
          if (request === null) {
            ended = true;
            call.end();
            return;
          }
          unanswered += 1;
          call.write(request);
        }
      };
      call.on("data", (response) => {
        unanswered -= 1;
        acknowledged(response);
        fill();
      });
      call.on("error", reject);
      call.on("end", resolve);
      fill();
    });
  }
}

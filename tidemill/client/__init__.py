"""The SDK: sends events, reads live views, seals dates.

Owns the client's half of exactly once: batches, their sequences, resending (`producer`, `queue`), and the futures that
tell what became of each row (`ack`). Knows a contract only as the service tells it (`contract`). Needs grpcio and
protobuf; what touches tables imports pyarrow when it is used. Main types: `Client`, `Stream`, `View`, `Ack`.
"""

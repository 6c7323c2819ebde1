"""The ingest service: contracts, the append log, live views, lake export and the gRPC server; wired in `app`."""

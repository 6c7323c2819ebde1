"""Runs a live model over a sample of events, live and as batch, and compares: `python -m ingest_service.live.trial`.

Owns the sample (made up by the contract's rules, or given), the random course of the live side (micro-batches,
restarts, seals), the batch side (the compiled SQL as dbt would run it, in DuckDB) and the comparison. The live side is
the real one: plan, view and store. Needs no service and no dbt; `tidemill test` shows it to people.

Main types: `EventMaker` (events that keep a contract), `Trial` (one model over one sample), `Outcome` (what it found).
"""

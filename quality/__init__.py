"""The day: seals, checks, builds, reconciles and publishes what the streams brought. Knows no Airflow.

Owns the stages of a daily run (`day`), the run's record (`run`), the Great Expectations suites (`suites`, `gate`), the
balance, the reconciliation and the publishing of the warehouse. Does not own the log or the live views: it asks the
ingest service for them (`service`), and reads the lake and the dbt project's tables.
"""

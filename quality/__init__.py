"""The day: seals, checks, builds, reconciles and publishes what the streams brought. Knows no Airflow.

Owns the stages of a daily run (`day`), whose turn it is (`turn`), the run's record (`run`), what is expected of events
and marts (`contract_suite`, `suite`, `gate`), the balance, the reconciliation, the publishing of the warehouse and its
versions (`publish`, `versions`), the landing folder (`landing`) and the upkeep of a data folder (`upkeep`). Does not
own the log or the live views: it asks the ingest service for them (`service`), and reads the lake and the dbt project's
tables.
"""

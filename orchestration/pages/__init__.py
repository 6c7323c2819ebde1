"""Pages inside Airflow, behind its login: the days, a run's report, the dbt docs and the data docs.

`app` wires the routes, `login` refuses strangers, `docs_files` serves the two docs; `days` and `report` read what the
runs left behind, and the templates show it. Nothing here writes.
"""

"""Runs all parts of Tidemill on one machine: the ingest service, and Airflow with the PostgreSQL of its metadata.

Owns the data folder's layout, child processes from start to end, ports, Airflow's settings and secrets, and the
client of Airflow's REST API. It imports neither the service nor the checks: it starts them as processes of their own.

Main types: `stack.Stack` (all of it), `supervisor.Supervisor` (processes), `airflow.Airflow`,
`airflow_client.AirflowClient`, `folder.DataFolder`.
"""

"""Tidemill's days in Airflow: factories of DAGs, their operators, triggers, callbacks and pages.

Owns everything that knows Airflow; the work itself is in `quality`, which knows no Airflow. A project's `dags/` folder
calls the factories, with its own settings. Nothing heavy is imported before a task runs: Airflow reads DAG files
every few seconds.
"""

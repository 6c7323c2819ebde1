"""The same dbt project by Cosmos, one task a model: a DAG file for the benchmark's Airflow.

Where it finds the project and what its dbt reads comes from the environment of Airflow's processes: COSMOS_PROJECT,
COSMOS_MANIFEST. A run's conf names the pins (a run.json), the work copy and the dates.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.sdk import DAG, Param
from cosmos import DbtTaskGroup, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode, TestBehavior, TestIndirectSelection

PROJECT = os.environ["COSMOS_PROJECT"]
STRING = {"type": "string"}

with DAG(
    "cosmos_models",
    schedule=None,
    start_date=datetime(2009, 1, 1, tzinfo=UTC),
    max_active_tasks=1,  # DuckDB takes one writer at a time
    params={name: Param("", **STRING) for name in ("pins", "warehouse", "work_copy", "start", "end")},
):
    DbtTaskGroup(
        group_id="dbt",
        project_config=ProjectConfig(
            dbt_project_path=PROJECT, manifest_path=os.environ["COSMOS_MANIFEST"], install_dbt_deps=False
        ),
        profile_config=ProfileConfig(
            profile_name="tidemill", target_name="dev", profiles_yml_filepath=f"{PROJECT}/profiles.yml"
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.LOCAL,
            invocation_mode=InvocationMode.DBT_RUNNER,
            test_indirect_selection=TestIndirectSelection.BUILDABLE,
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            test_behavior=TestBehavior.BUILD,
            emit_datasets=False,
            exclude=["path:models/operations"],
        ),
        operator_args={
            "append_env": True,
            "env": {
                "TIDEMILL_PINS": "{{ params.pins }}",
                "TIDEMILL_WAREHOUSE": "{{ params.warehouse }}",
                "TIDEMILL_WORK_COPY": "{{ params.work_copy }}",
                "DO_NOT_TRACK": "1",
            },
            # Without unit tests, as ours: those run after a change of the project.
            "dbt_cmd_flags": [
                "--event-time-start",
                "{{ params.start }}",
                "--event-time-end",
                "{{ params.end }}",
                "--exclude-resource-type",
                "unit_test",
            ],
        },
    )

"""Who may see the pages: whoever is logged in to Airflow and may read the runs of the DAG in question."""

from __future__ import annotations

from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, HTTPException

User = Annotated[Any, Depends(get_user)]
"""The user of a request. Without Airflow's cookie or token it is refused: 401, or 403 when they are not valid."""


def may_read(user: Any, dag_id: str) -> bool:
    """Whether the user may read the DAG's runs."""
    return bool(
        get_auth_manager().is_authorized_dag(
            method="GET", user=user, access_entity=DagAccessEntity.RUN, details=DagDetails(id=dag_id)
        )
    )


def check_may_read(user: Any, dag_id: str) -> None:
    """Raise HTTPException 403 unless the user may read the DAG's runs."""
    if not may_read(user, dag_id):
        raise HTTPException(403, f"You may not read the runs of {dag_id}: ask for the right to in Airflow")

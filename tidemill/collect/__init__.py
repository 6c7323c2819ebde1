"""Collectors: what a machine measures of itself, as events.

Owns what is measured (`host`) and when (`rounds`); sending is the SDK's. Needs the extras `collect` and `cli`.
Main types: `HostSensors`, `Reading`; `rounds` makes rows of stream `readings` of them.
"""

from __future__ import annotations

from tidemill.collect.host import HostSensors, Reading
from tidemill.collect.rounds import Round, rounds

__all__ = ["HostSensors", "Reading", "Round", "rounds"]

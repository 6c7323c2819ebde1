"""A shop that does not exist: days of order lines in about the proportions of a real one.

Owns what its days look like (`catalogue`, `day`), how the lines arrive and what goes wrong on the way (`arrival`), and
events at the present time (`live`). Seeded: the same seed, date and size give the same lines. Needs the extra `cli`.
Main types: `SimulatedDay`, made by `simulate_day`; `LiveShop`.
"""

from __future__ import annotations

from tidemill.simulate.arrival import SimulatedDay, Truth, simulate_day
from tidemill.simulate.live import LiveShop

__all__ = ["LiveShop", "SimulatedDay", "Truth", "simulate_day"]

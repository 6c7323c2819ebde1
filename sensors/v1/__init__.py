"""Stubs generated from proto/sensors/v1 by `make proto`."""

"""Stubs generated from proto/sensors by `make proto`."""

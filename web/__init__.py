"""Stubs generated from proto/web by `make proto`."""

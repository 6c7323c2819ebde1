"""Stubs generated from proto/web/v1 by `make proto`."""

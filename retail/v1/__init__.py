"""Stubs generated from proto/retail/v1 by `make proto`."""

"""Stubs generated from proto/retail by `make proto`."""

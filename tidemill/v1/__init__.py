"""Stubs of the API, generated from proto/tidemill/v1 by `make proto`."""

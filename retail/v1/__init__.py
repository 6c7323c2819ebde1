"""Stubs generated from proto/retail/v1; see CONTRIBUTING.md."""

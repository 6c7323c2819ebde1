"""Stubs generated from proto/retail; see CONTRIBUTING.md."""

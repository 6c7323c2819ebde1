"""Stubs generated from proto/sensors; see CONTRIBUTING.md."""

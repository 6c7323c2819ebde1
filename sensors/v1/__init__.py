"""Stubs generated from proto/sensors/v1; see CONTRIBUTING.md."""

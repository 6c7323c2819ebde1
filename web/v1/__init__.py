"""Stubs generated from proto/web/v1; see CONTRIBUTING.md."""

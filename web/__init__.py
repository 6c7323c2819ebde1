"""Stubs generated from proto/web; see CONTRIBUTING.md."""

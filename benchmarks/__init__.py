"""Measurements: `make bench`, or `make bench ONLY=name`. Nothing here is a test: absolute times wander."""

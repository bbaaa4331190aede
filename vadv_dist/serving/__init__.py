"""Serve a text student over HTTP, with batches made from concurrent requests."""

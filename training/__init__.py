"""Learns from the past: data, models, their evaluation and registration. Serving never imports it."""

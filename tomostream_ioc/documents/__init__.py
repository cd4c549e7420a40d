"""Bluesky documents in and out: images to peaks, peaks to tracks, tracks to crystal maps."""

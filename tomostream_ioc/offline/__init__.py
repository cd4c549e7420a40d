"""Slices of a scan that lies in a file, by the engine that reconstructs the stream."""

"""The run: takes frames from a source, drives the engine in its own thread, hands slices on."""

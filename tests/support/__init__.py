"""Processes and clients that the tests of the whole IOC share."""

"""The live run of peak tracking behind the Crystal: records."""

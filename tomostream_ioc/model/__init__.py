"""What a frame, a scan and a parameter set are: numpy and the standard library only."""

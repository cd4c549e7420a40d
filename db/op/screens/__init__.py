"""Operator screens described once, written for MEDM (.adl) and for Phoebus (.bob)."""

"""The typed errors of the product: each says what was wrong and what to do about it."""

from __future__ import annotations


class TomoStreamError(Exception):
    """Base of every error that the product raises on purpose; its text is fit for a user."""


class ConfigError(TomoStreamError):
    """The command line, a macro or a substitutions file can't be used (exit code 2)."""


class FrameError(TomoStreamError):
    """One frame can't be used; the stream goes on. ``cause`` groups equal reasons for the log."""

    def __init__(self, cause: str, reason: str):
        super().__init__(reason)
        self.cause = cause


class FieldError(TomoStreamError):
    """A dark or flat field can't be used; the last good one stays."""


class ThetaError(TomoStreamError):
    """A theta array can't be used to place frames by angle."""


class ParameterError(TomoStreamError):
    """A reconstruction parameter lies outside what the scan's geometry allows."""


class ArmingError(TomoStreamError):
    """A run can't start; the text is what ReconStatus shows."""


class CenterError(TomoStreamError):
    """The axis of rotation can't be looked for in the frames that are there."""


class LensError(TomoStreamError):
    """A change of lens can't be followed: what the optics say makes no sense."""


class EngineError(TomoStreamError):
    """The reconstruction engine failed while running."""


class TrackingError(TomoStreamError):
    """An image, a table of peaks or a scan's grid can't be used for peaks, tracks and maps."""

"""The image that is subtracted: read from a file, or averaged from the next images."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import tifffile

from tomostream_ioc.errors import TrackingError
from tomostream_ioc.tracking import average_frames

#: data sets that are looked for in an HDF5 file, in this order, before the first image in it
_USUAL = ("entry/data/data", "exchange/data", "data")


def read_background(path: str) -> np.ndarray:
    """An image (n_rows, n_cols), or the mean of a stack (n_frames, n_rows, n_cols), as float64.

    ``.npy``, ``.tif``, or HDF5 (``file.h5`` or ``file.h5:/path/of/data``).

    Raises TrackingError: there is no such file, it can't be read, or holds no image.
    """
    name, _, dataset = path.partition(":")
    file = Path(name).expanduser()
    if file.is_dir():
        raise TrackingError(f"The background {file} is a folder: give a file in it")
    try:
        match file.suffix.lower():
            case ".npy":
                images = np.load(file, allow_pickle=False)
            case ".tif" | ".tiff":
                images = tifffile.imread(file)
            case ".h5" | ".hdf5" | ".nxs":
                images = _from_hdf5(file, dataset)
            case suffix:
                raise TrackingError(
                    f"{file.name} can't be a background: {suffix or 'no suffix'} is not .npy, .tif "
                    f"or .h5"
                )
    except (OSError, ValueError, KeyError, tifffile.TiffFileError) as error:
        raise TrackingError(f"The background {file.name} can't be read: {error}") from error
    image = average_frames(np.squeeze(images))
    if not np.isfinite(image).any():
        raise TrackingError(f"The background {file.name} holds no finite number: take it again")
    return image


def _from_hdf5(file: Path, dataset: str) -> np.ndarray:
    with h5py.File(file) as opened:
        names = [dataset] if dataset else [name for name in _USUAL if name in opened]
        if not names:
            opened.visititems(
                lambda name, item: (
                    names.append(name)
                    if isinstance(item, h5py.Dataset) and item.ndim in (2, 3)
                    else None
                )
            )
        if not names:
            raise TrackingError(f"{file.name} holds no image: name one as {file.name}:/path")
        found = opened[names[0]]
        if not isinstance(found, h5py.Dataset):
            raise TrackingError(f"{names[0]} in {file.name} is no data set")
        return found[()]


class BackgroundTaker:
    """Averages the images of the next points."""

    def __init__(self, request_id: int, n_frames: int):
        self.request_id = request_id
        self._wanted = n_frames
        self._taken = 0
        self._total = np.empty((0, 0))

    @property
    def progress(self) -> str:
        return f"{self._taken} of {self._wanted}"

    def add(self, images: np.ndarray, n_frames: int) -> np.ndarray | None:
        """The background once there are enough images; another size begins anew.

        ``images`` is the mean of ``n_frames``, or all of them.
        """
        image = average_frames(images)
        if self._total.shape != image.shape:
            self._total, self._taken = np.zeros(image.shape), 0
        self._total += image * n_frames
        self._taken += n_frames
        return self._total / self._taken if self._taken >= self._wanted else None

"""Records of peak tracking: what to read, how to find and link peaks, and what came of it."""

from __future__ import annotations

from caproto.server import PVGroup

from tomostream_ioc.epics.declare import declare
from tomostream_ioc.epics.records import Ao, Bo, Busy, Longout, Mbbo, Stringout, Waveform
from tomostream_ioc.model.crystal import MAP_OF, QUANTIZE, SOURCES, PeakParams


def _count(name: str, description: str, unit: str):
    return declare(Longout, f"Crystal:{name}", description, value=0, read_only=True, EGU=unit)


def _figure(name: str, description: str, unit: str, precision: int):
    return declare(
        Ao, f"Crystal:{name}", description, value=0.0, read_only=True, EGU=unit, PREC=precision
    )


def _states(texts) -> tuple[tuple[int, str], ...]:
    return tuple(enumerate(texts))


_START = PeakParams()


class CrystalRecords(PVGroup):
    """The Crystal: group; db/tomoStreamCrystal.template says the same."""

    # --- control --------------------------------------------------------------------------
    crystal_start = declare(
        Busy,
        "Crystal:Start",
        "1 starts peak tracking, 0 ends it",
        value=0,
        ZNAM="Done",
        ZSV="NO_ALARM",
        ONAM="Acquire",
        OSV="NO_ALARM",
    )
    crystal_abort = declare(
        Bo, "Crystal:Abort", "1 ends peak tracking", value=0, ZNAM="No", ONAM="Yes"
    )
    crystal_status = declare(
        Waveform, "Crystal:Status", "What peak tracking does", FTVL="UCHAR", NELM=256
    )

    # --- what is read ---------------------------------------------------------------------
    crystal_source = declare(
        Mbbo, "Crystal:Source", "Where images come from", value=0, states=_states(SOURCES)
    )
    crystal_image_pva = declare(
        Stringout, "Crystal:ImagePVAName", "PVA channel of the detector", macro="CRYSTAL_PVA"
    )
    crystal_docs_address = declare(
        Stringout,
        "Crystal:DocsAddress",
        "ZMQ proxy of bluesky documents",
        value="localhost:5568",
    )
    crystal_docs_prefix = declare(
        Stringout, "Crystal:DocsPrefix", "Prefix of those documents", value="raw"
    )
    crystal_image_key = declare(
        Stringout, "Crystal:ImageKey", "Data key of the images, '' = first", value=""
    )
    crystal_rows = declare(
        Longout, "Crystal:Rows", "Slow axis of the scan, 0 = unknown", value=0, EGU="points", LOPR=0
    )
    crystal_columns = declare(
        Longout,
        "Crystal:Columns",
        "Fast axis of the scan, 0 = unknown",
        value=0,
        EGU="points",
        LOPR=0,
    )
    crystal_snaking = declare(
        Bo, "Crystal:Snaking", "Each other row runs backwards", value=1, ZNAM="No", ONAM="Yes"
    )
    crystal_frames_per_point = declare(
        Longout,
        "Crystal:FramesPerPoint",
        "Images averaged to one",
        value=1,
        EGU="frames",
        LOPR=1,
        HOPR=10000,
    )

    # --- background -----------------------------------------------------------------------
    crystal_background_file = declare(
        Waveform,
        "Crystal:BackgroundFile",
        "Image to subtract: .npy .h5 .tif",
        FTVL="UCHAR",
        NELM=256,
    )
    crystal_background_on = declare(
        Bo, "Crystal:BackgroundOn", "Subtract the background", value=1, ZNAM="Off", ONAM="On"
    )
    crystal_take_background = declare(
        Busy,
        "Crystal:TakeBackground",
        "1 averages the next images to it",
        value=0,
        ZNAM="Done",
        ZSV="NO_ALARM",
        ONAM="Take",
        OSV="NO_ALARM",
    )
    crystal_background_frames = declare(
        Longout,
        "Crystal:BackgroundFrames",
        "How many images TakeBackground takes",
        value=10,
        EGU="frames",
        LOPR=1,
        HOPR=10000,
    )
    crystal_background_mean = _figure("BackgroundMean", "Mean of the background", "counts", 2)
    crystal_hot_pixel_mask = declare(
        Bo,
        "Crystal:HotPixelMask",
        "Leave out pixels hot in the background",
        value=0,
        ZNAM="Off",
        ONAM="On",
    )
    crystal_masked_pixels = _count("MaskedPixels", "Pixels left out", "pixels")

    # --- peaks and tracks -----------------------------------------------------------------
    crystal_diameter = declare(
        Longout,
        "Crystal:Diameter",
        "Size of a peak, odd",
        value=_START.diameter,
        EGU="pixel",
        LOPR=3,
        HOPR=101,
    )
    crystal_percentile = declare(
        Ao,
        "Crystal:Percentile",
        "Peaks are brighter than this of pixels",
        value=_START.percentile,
        EGU="%",
        PREC=1,
        LOPR=0,
        HOPR=100,
    )
    crystal_separation = declare(
        Ao,
        "Crystal:Separation",
        "Least distance of two peaks",
        value=_START.separation,
        EGU="pixel",
        PREC=1,
        LOPR=1,
        HOPR=1000,
    )
    crystal_min_mass = declare(
        Ao,
        "Crystal:MinMass",
        "Least brightness of a peak",
        value=_START.min_mass,
        EGU="counts",
        PREC=1,
        LOPR=0,
        HOPR=1e9,
    )
    crystal_max_peaks = declare(
        Longout,
        "Crystal:MaxPeaks",
        "The brightest so many, 0 = all",
        value=_START.max_peaks,
        EGU="peaks",
        LOPR=0,
        HOPR=100000,
    )
    crystal_quantize = declare(
        Mbbo,
        "Crystal:Quantize",
        "Steps of the searched image",
        value=0,
        states=_states(QUANTIZE),
    )
    crystal_search_range = declare(
        Ao,
        "Crystal:SearchRange",
        "A spot moves no further",
        value=_START.search_range,
        EGU="pixel",
        PREC=1,
        LOPR=0,
        HOPR=1000,
    )
    crystal_memory = declare(
        Longout,
        "Crystal:Memory",
        "Points a spot may be gone, -1 = by grid",
        value=_START.memory,
        EGU="points",
        LOPR=-1,
        HOPR=100000,
    )

    # --- the map that is shown ------------------------------------------------------------
    crystal_map_of = declare(
        Mbbo, "Crystal:MapOf", "What the map shows", value=0, states=_states(MAP_OF)
    )
    crystal_map_track = declare(
        Longout, "Crystal:MapTrack", "Which track, for MapOf = Track", value=0, LOPR=0
    )
    crystal_map_shown = declare(
        Longout, "Crystal:MapShown", "Track in the map, -1 = total", value=-1, read_only=True
    )

    # --- counters and rates ---------------------------------------------------------------
    crystal_received = _count("FramesReceived", "Images decoded", "frames")
    crystal_rejected = _count("FramesRejected", "Images not usable", "frames")
    crystal_missed = _count("FramesMissed", "Images that never came", "frames")
    crystal_duplicate = _count("FramesDuplicate", "Images that came twice", "frames")
    crystal_dropped = _count("FramesDropped", "Images too fast for tracking", "frames")
    crystal_points = _count("Points", "Points searched for peaks", "points")
    crystal_failed = _count("PointsFailed", "Points whose search failed", "points")
    crystal_oversized = _count("PointsCrowded", "Points with too many links at once", "points")
    crystal_fallback = _count("PointsSlow", "Points searched by trackpy itself", "points")
    crystal_in_frame = _count("PeaksInFrame", "Peaks of the newest point", "peaks")
    crystal_peaks = _count("PeaksTotal", "Peaks of this run", "peaks")
    crystal_tracks = _count("TracksTotal", "Tracks of this run", "tracks")
    crystal_frame_rate = _figure("FrameRate", "Rate of images", "Hz", 1)
    crystal_point_rate = _figure("PointRate", "Rate of points searched", "Hz", 1)
    crystal_latency = _figure("Latency", "Image's arrival to peaks posted", "s", 4)
    crystal_locate_time = _figure("LocateTime", "To find the peaks of a point", "s", 4)
    crystal_link_time = _figure("LinkTime", "To link them", "s", 4)

"""Every record of the IOC: its type, fields, choices, initial value and description."""

from __future__ import annotations

from caproto.server import PVGroup

from tomostream_ioc.epics.calcout import Calcout
from tomostream_ioc.epics.crystal_records import CrystalRecords
from tomostream_ioc.epics.declare import declare
from tomostream_ioc.epics.operation_records import OperationRecords
from tomostream_ioc.epics.records import (
    Ao,
    Bi,
    Bo,
    Busy,
    Longout,
    Mbbo,
    Stringout,
    Waveform,
)
from tomostream_ioc.epics.save_declarations import AutosaveRecords


class TomoStreamRecords(PVGroup):
    """The contract of db/*.template, record by record; a test holds one against the other."""

    # --- names ----------------------------------------------------------------------------
    tomoscan_prefix = declare(
        Stringout, "TomoScanPVPrefix", "CA prefix of the tomoScan IOC", macro="TOMO_SCAN"
    )
    image_pva = declare(
        Stringout, "ImagePVAPName", "Record with the PVA plugin's prefix", macro="IMAGE_P"
    )
    dark_pva = declare(Stringout, "DarkPVAName", "PVA channel of the dark field", macro="DARK_PVA")
    flat_pva = declare(Stringout, "FlatPVAName", "PVA channel of the flat field", macro="FLAT_PVA")
    theta_pva = declare(Stringout, "ThetaPVAName", "PVA channel of the angles", macro="THETA_PVA")
    recon_pva = declare(
        Stringout, "ReconPVAName", "PVA channel of the slices, served here", macro="RECON_PVA"
    )
    camera_prefix = declare(Stringout, "CameraPVPrefix", "CA prefix of the camera", macro="CAMERA")

    # --- reconstruction parameters --------------------------------------------------------
    center = declare(Ao, "Center", "Rotation axis: detector column", unit="pixel", PREC=3)
    center_tweak = declare(
        Ao, "CenterTweak", "Step of CenterTweakUp and Down", value=3.0, unit="pixel", PREC=3
    )
    center_tweak_up = declare(
        Calcout,
        "CenterTweakUp",
        "PROC: Center + CenterTweak",
        unit="pixel",
        INPA="$(P)$(R)CenterTweak NPP NMS",
        INPB="$(P)$(R)Center NPP NMS",
        CALC="B+A",
        OUT="$(P)$(R)Center PP NMS",
    )
    center_tweak_down = declare(
        Calcout,
        "CenterTweakDown",
        "PROC: Center - CenterTweak",
        unit="pixel",
        INPA="$(P)$(R)CenterTweak NPP NMS",
        INPB="$(P)$(R)Center NPP NMS",
        CALC="B-A",
        OUT="$(P)$(R)Center PP NMS",
    )
    find_center = declare(
        Busy,
        "FindCenter",
        "1 looks for the rotation axis",
        value=0,
        ZNAM="Done",
        ZSV="NO_ALARM",
        ONAM="Search",
        OSV="NO_ALARM",
    )
    center_found = declare(
        Ao,
        "CenterFound",
        "Rotation axis that was found",
        value=0.0,
        read_only=True,
        EGU="pixel",
        PREC=3,
    )
    center_confidence = declare(
        Ao,
        "CenterConfidence",
        "0..1: trust CenterFound above 0.5",
        value=0.0,
        read_only=True,
        PREC=2,
        LOPR=0,
        HOPR=1,
    )
    center_auto = declare(
        Bo, "CenterAuto", "Find it once, put it in Center", value=0, ZNAM="Off", ONAM="On"
    )
    filter_type = declare(
        Mbbo,
        "FilterType",
        "Filter of the back-projection",
        states=((0, "Parzen"), (1, "Shepp-logan"), (2, "Ramp"), (3, "Butterworth")),
    )
    dezinger = declare(
        Mbbo,
        "Dezinger",
        "Outlier removal before the logarithm",
        states=((0, "None"), (2, "Radius 2"), (3, "Radius 3"), (4, "Radius 4")),
    )
    ring_removal = declare(
        Mbbo,
        "RingRemoval",
        "Ring artefact removal",
        states=((0, "None"), (1, "fw")),
    )
    ortho_x = declare(Longout, "OrthoX", "x of the y-z slice", unit="pixel", LOPR=0, HOPR=2448)
    ortho_y = declare(Longout, "OrthoY", "y of the x-z slice", unit="pixel", LOPR=0, HOPR=2448)
    ortho_z = declare(Longout, "OrthoZ", "z of the x-y slice", unit="pixel", LOPR=0, HOPR=2448)
    rot_x = declare(Ao, "RotX", "Tilt about x", unit="deg", PREC=1, LOPR=-180, HOPR=180)
    rot_y = declare(Ao, "RotY", "Tilt about y", unit="deg", PREC=1, LOPR=-180, HOPR=180)
    rot_z = declare(Ao, "RotZ", "Tilt about z", unit="deg", PREC=1, LOPR=-180, HOPR=180)
    energy = declare(
        Ao,
        "Energy",
        "X-ray energy (phase retrieval)",
        unit="keV",
        PREC=2,
        LOPR=1,
        HOPR=100,
    )
    distance = declare(
        Ao,
        "Distance",
        "Sample to detector (phase retrieval)",
        unit="mm",
        PREC=1,
        LOPR=0,
        HOPR=5000,
    )
    alpha = declare(
        Ao,
        "Alpha",
        "Regularisation (phase retrieval)",
        PREC=8,
        LOPR=0,
        HOPR=10000,
    )
    pixel_size = declare(
        Ao,
        "PixelSize",
        "Unbinned pixel at the sample (phase)",
        unit="um",
        PREC=3,
        LOPR=1e-5,
        HOPR=100,
    )

    stream_binning = declare(
        Mbbo,
        "StreamBinning",
        "Binning of the frames on arrival",
        value=0,
        states=((1, "1x"), (2, "2x"), (4, "4x")),
    )

    # --- status ---------------------------------------------------------------------------
    buffer_size = declare(Stringout, "BufferSize", "Newest batch / capacity", unit="frames")
    recon_status = declare(
        Waveform, "ReconStatus", "What the reconstruction does", FTVL="UCHAR", NELM=256
    )
    recon_time = declare(Ao, "ReconTime", "Time of the last reconstruction", unit="s", PREC=5)
    watchdog = declare(
        Calcout,
        "Watchdog",
        "Counts down; the server sets it to 5",
        unit="s",
        SCAN="1 second",
        INPA="$(P)$(R)Watchdog.VAL NPP",
        CALC="A-1",
        OCAL="A>0?1:0",
        OOPT="On Change",
        DOPT="Use OCAL",
        OUT="$(P)$(R)ServerRunning PP",
    )
    server_running = declare(
        Bi,
        "ServerRunning",
        "The reconstruction server is alive",
        ZNAM="Stopped",
        ZSV="MAJOR",
        ONAM="Running",
        OSV="NO_ALARM",
    )
    frames_received = declare(
        Longout, "FramesReceived", "Frames decoded", value=0, read_only=True, EGU="frames"
    )
    frames_rejected = declare(
        Longout, "FramesRejected", "Frames not usable", value=0, read_only=True, EGU="frames"
    )
    frames_missed = declare(
        Longout, "FramesMissed", "Frames that never came", value=0, read_only=True, EGU="frames"
    )
    frames_duplicate = declare(
        Longout, "FramesDuplicate", "Frames that came twice", value=0, read_only=True, EGU="frames"
    )
    frames_disordered = declare(
        Longout,
        "FramesDisordered",
        "Frames that came out of order",
        value=0,
        read_only=True,
        EGU="frames",
    )
    frames_dropped = declare(
        Longout,
        "FramesDropped",
        "Frames too fast for the engine",
        value=0,
        read_only=True,
        EGU="frames",
    )
    frames_skipped = declare(
        Longout,
        "FramesSkipped",
        "Dark, flat and lens change: no loss",
        value=0,
        read_only=True,
        EGU="frames",
    )
    bad_pixels = declare(
        Longout,
        "BadPixels",
        "Pixels without usable dark and flat",
        value=0,
        read_only=True,
        EGU="pixels",
    )
    memory_policy = declare(
        Stringout, "MemoryPolicy", "What of the scan is kept where", value="", read_only=True
    )
    memory_used = declare(
        Ao,
        "MemoryUsed",
        "Set aside on the device that computes",
        value=0.0,
        read_only=True,
        EGU="GiB",
        PREC=3,
    )
    frame_rate = declare(
        Ao, "FrameRate", "Rate of projections", value=0.0, read_only=True, EGU="Hz", PREC=1
    )
    recon_rate = declare(
        Ao, "ReconRate", "Rate of reconstructions", value=0.0, read_only=True, EGU="Hz", PREC=1
    )
    latency = declare(
        Ao,
        "Latency",
        "Frame's arrival to slices posted",
        value=0.0,
        read_only=True,
        EGU="s",
        PREC=4,
    )

    # --- control --------------------------------------------------------------------------
    start_recon = declare(
        Busy,
        "StartRecon",
        "1 starts a run, 0 ends it",
        value=0,
        ZNAM="Done",
        ZSV="NO_ALARM",
        ONAM="Acquire",
        OSV="MINOR",
    )
    abort_recon = declare(Bo, "AbortRecon", "1 ends the run", ZNAM="No", ONAM="Yes")
    status = declare(Bo, "Status", "Streaming reconstruction", value=0, ZNAM="Off", ONAM="On")
    crosshair = declare(
        Bo, "Crosshair", "Lines where the slices cross", value=1, ZNAM="Off", ONAM="On"
    )

    # --- lens change ----------------------------------------------------------------------
    lens_change_sync = declare(
        Bo, "LensChangeSync", "Follow a change of lens", ZNAM="No", ONAM="Yes"
    )
    mct_optics_prefix = declare(
        Stringout, "MctOpticsPVPrefix", "CA prefix of MCTOptics", macro="MCT_OPTICS"
    )
    sample_tomo_0deg = declare(
        Stringout, "SampleTomo0degPVName", "Sample motor along x at 0 deg", macro="TOMO_0_DEG"
    )
    sample_tomo_90deg = declare(
        Stringout, "SampleTomo90degPVName", "Sample motor along x at 90 deg", macro="TOMO_90_DEG"
    )
    sample_y = declare(Stringout, "SampleYPVName", "Vertical motor of the sample", macro="SAMPLE_Y")
    roi_plugin_prefix = declare(
        Stringout, "RoiPluginPVPrefix", "CA prefix of the ROI plugin", macro="ROI_PLUGIN"
    )


class IocRecords(TomoStreamRecords, CrystalRecords, OperationRecords, AutosaveRecords):
    """Every record that is served."""

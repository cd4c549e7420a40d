"""What a new user reads at the start: what is served, and what to try."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tomostream_ioc.config import Config

_KINDS = ("CA", "PVA")


def welcome(config: Config, recon: str) -> str:
    """``recon`` is the slices' channel as the record has it: saved settings win over options."""
    prefix = config.prefix
    where = " on " + ", ".join(config.interfaces) if config.interfaces else ""
    names = shlex.join(["--P", config.prefix_p, "--R", config.prefix_r, "--list-pvs"])
    start = f"caput  {prefix}StartRecon 1       begin, once tomoScan has sent its angles\n  "
    return f"""
Serving {prefix}* over Channel Access and the slices over PV Access{where}:
  {recon}    z, y and x slice side by side (ImageJ, Phoebus, c2dataviewer)
  {recon}Z, {recon}Y, {recon}X    each slice alone
Try, in another terminal:
  {_client_variables(config.interfaces)}{"" if config.start else start}\
caget  -S {prefix}ReconStatus      a sentence: what is going on
  caget  {prefix}FrameRate {prefix}FramesMissed
  caput  {prefix}OrthoZ 100         the z slice moves at once
  caput  {prefix}FindCenter 1       find the centre of rotation: CenterFound, CenterConfidence
  caput  {prefix}CenterTweakUp.PROC 1     turn it by hand
  caput  {prefix}FilterType Ramp
  caput  {prefix}AbortRecon 1       end the run; caput {prefix}StartRecon 1 begins anew
All PVs: python -m tomostream_ioc {names}. End with Ctrl-C.
"""


def _client_variables(interfaces: Sequence[str]) -> str:
    """A line for the shell: clients broadcast, and a server bound to one address hears none."""
    if not interfaces:
        return ""
    addresses = shlex.quote(" ".join(interfaces))
    words = (
        f"EPICS_{kind}_ADDR_LIST={addresses} EPICS_{kind}_AUTO_ADDR_LIST=NO" for kind in _KINDS
    )
    return f"export {' '.join(words)}\n  "

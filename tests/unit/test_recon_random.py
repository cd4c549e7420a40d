"""An engine shows after any sequence of calls what a fresh engine shows of the same ring."""

from dataclasses import replace

import numpy as np
import pytest
from test_recon_phantom import Phantom, engine_for, half_turn, middle, worst

from tomostream_ioc.errors import CenterError
from tomostream_ioc.recon.filtered import ChunkedFrames

N_ANGLES, N_COLS, N_ROWS, CENTER = 30, 40, 12, 19.0
PHANTOM = Phantom(N_COLS, N_ROWS)
N_STEPS = 80
PHASE = {"energy_kev": 20.0, "distance_mm": 50.0, "alpha": 1e-3, "pixel_size_um": 2.0}
NO_PHASE = dict.fromkeys(PHASE, 0.0)
#: two samples, both seen over a whole turn in steps of the scan
TURN = half_turn(2 * N_ANGLES) * 2.0
RAW = [Phantom(N_COLS, N_ROWS, scale=s).raw(TURN, CENTER) for s in (1.0, 0.6)]


class Stop(Exception):  # noqa: N818
    pass


class Heartbeat:
    """Raises once, at the beat that is ``left`` beats away; None: never."""

    left: int | None = None

    def __call__(self):
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                self.left = None
                raise Stop


class Driver:
    """An engine, what was done to it, and a ring of its own to tell what must come of it."""

    def __init__(self, seed, policy):
        self.rng = np.random.default_rng(seed)
        self.policy = policy
        self.heartbeat = Heartbeat()
        self.engine = engine_for(
            PHANTOM, N_ANGLES, policy=policy, heartbeat=self.heartbeat, n_threads=2
        )
        self.params = middle(PHANTOM, center=CENTER)
        self.dark, self.flat = PHANTOM.dark(), PHANTOM.flat()
        self.ring = {}  # slot -> (frame, theta_deg)
        self.k = 0
        self.done = []
        self.can_fail = policy == "auto"
        self.cut()

    def cut(self):
        """Little at a time, so that there is an in between."""
        filtered = self.engine._filtered
        filtered.frames_at_once = 5
        if isinstance(filtered, ChunkedFrames):
            filtered.n_places = 7

    # ---- what can happen

    def push(self):
        n = int(self.rng.integers(1, 13))
        steps = np.maximum(self.rng.integers(-3, 4, n), 1).cumsum()  # some are missed
        if self.rng.random() < 0.2:
            steps -= int(self.rng.integers(0, 8))  # late or doubled
        ks = np.maximum(self.k + steps, 0)
        self.k = int(ks.max())
        theta = ks * 180.0 / N_ANGLES
        frames = RAW[int(self.rng.integers(2))][ks % (2 * N_ANGLES)]
        if self.rng.random() < 0.3:
            theta = theta + self.rng.normal(0, 2.0, n)
        slots = ks % N_ANGLES
        try:
            self.engine.push(frames, theta, slots)
        except Stop:  # some were taken: the rest comes again
            self.engine.push(frames, theta, slots)
        for slot, frame, angle in zip(slots.tolist(), frames, theta, strict=True):
            self.ring[slot] = frame, angle

    def move(self):
        name = self.rng.choice(["center", "ortho_x", "ortho_y", "ortho_z"])
        size = {"center": N_COLS, "ortho_z": N_ROWS}.get(name, N_COLS)
        self.turn({name: int(self.rng.integers(0, size))})

    def tilt(self):
        name = self.rng.choice(["rot_x_deg", "rot_y_deg", "rot_z_deg"])
        self.turn({name: float(self.rng.choice([0.0, 0.0, 5.0, -20.0]))})

    def choose_filter(self):
        self.turn({"filter_type": str(self.rng.choice(["Parzen", "Ramp", "Shepp-logan"]))})

    def choose_dezinger(self):
        self.turn({"dezinger": int(self.rng.choice([0, 0, 2, 3]))})

    def toggle_phase(self):
        self.turn(NO_PHASE if self.params.has_phase else PHASE)

    def toggle_rings(self):
        self.turn({"ring_removal": "None" if self.params.ring_removal == "fw" else "fw"})

    def turn(self, changes):
        self.params = replace(self.params, **changes)

    def take_dark(self):
        self.dark = PHANTOM.dark() + 200.0 * self.rng.random()
        self.engine.set_dark(self.dark)

    def take_flat(self):
        self.flat = PHANTOM.flat() * (1 + 0.1 * self.rng.random())
        self.flat[3, 7] = self.rng.choice([0.0, 50000.0])  # a bad pixel
        self.engine.set_flat(self.flat)

    def reset(self):
        self.engine.reset()
        self.ring.clear()

    def find_center(self):
        if len(self.ring) < N_ANGLES:
            return
        row = int(self.rng.integers(N_ROWS))
        try:
            search = self.engine.center_search(replace(self.params, ortho_z=row))
        except CenterError:  # angles jitter, so that some are missing
            return
        for _ in range(5):
            search.step()

    def show(self):
        if self.ring:
            self.engine.reconstruct(self.params)

    def cancel(self):
        """The next work is given up on the way; something else may come before it is done again."""
        self.heartbeat.left = int(self.rng.integers(1, 14))

    def lose_memory(self):
        """Memory runs out at one of the next calls."""
        if not self.can_fail:
            return
        self.can_fail = False
        name = str(self.rng.choice(["filter", "line_integrals", "add_vertical", "add_frames"]))
        in_chain = name in ("filter", "line_integrals")
        owner = self.engine.chain if in_chain else self.engine.projector
        real, left = getattr(owner, name), int(self.rng.integers(0, 4))

        def fails_once(*arguments):
            nonlocal left
            left -= 1
            if left < 0:
                raise MemoryError
            return real(*arguments)

        setattr(owner, name, fails_once)

    # ---- what must come of it

    def check(self):
        if not self.ring:
            return
        self.heartbeat.left = None
        fresh = engine_for(PHANTOM, N_ANGLES, fields=False, n_threads=2)
        fresh.set_dark(self.dark)
        fresh.set_flat(self.flat)
        slots = np.array(list(self.ring))
        frames = np.stack([frame for frame, _ in self.ring.values()])
        theta = np.array([angle for _, angle in self.ring.values()])
        fresh.push(frames, theta, slots)
        params = replace(self.params, ring_removal="None")
        shown, expected = self.engine.reconstruct(params), fresh.reconstruct(params)
        assert self.engine.n_filled == len(self.ring)
        assert worst(shown, expected) < 1e-5, self.done
        if self.rng.random() < 0.5:  # stripes depend on what was before: here they begin anew
            params = replace(params, ring_removal="fw")
            shown, expected = self.engine.reconstruct(params), fresh.reconstruct(params)
            assert worst(shown, expected) < 1e-3, [*self.done, "fw"]
        fresh.release()


#: and how often
STEPS = {
    "push": 10, "show": 8, "check": 2, "move": 3, "tilt": 1, "choose_filter": 1,
    "choose_dezinger": 1, "toggle_phase": 1, "toggle_rings": 2, "take_dark": 1, "take_flat": 1,
    "find_center": 1, "cancel": 4, "lose_memory": 1, "reset": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("policy", ["all on device", "chunked", "auto"])
@pytest.mark.parametrize("seed", range(8))
def test_any_sequence_equals_a_fresh_engine(policy, seed):
    driver = Driver(seed, policy)
    often = np.array(list(STEPS.values()))
    for step in driver.rng.choice(list(STEPS), N_STEPS, p=often / often.sum()):
        driver.done.append(str(step))
        try:
            getattr(driver, step)()
        except Stop:
            driver.done[-1] += " (cancelled)"
        driver.cut()
    driver.check()
    driver.engine.release()

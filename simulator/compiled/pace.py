"""How a compiled run is cut into slices: for how many packets, and on how many threads.

Called by `simulator.compiled.native_chip` between slices. Threads meet every few microseconds, so
on a host that has less room than it says two may be slower than one: what is faster is measured.
"""

from __future__ import annotations

FIRST_BUDGET = 20_000
"""Packets that a core runs before Python comes back for the first time, and at least."""

SLICE_SECONDS = 0.1
"""About how long Python stays away."""

TELLING_SECONDS = 0.02
"""Shorter slices do not tell how fast a number of threads is: starting them counts too much."""

TRIAL_EVERY = 16
"""Telling slices between two looks at how fast the other number of threads is."""

TRIAL_SHARE = 4
"""A trial is so many times shorter than a slice."""


class Pace:
    """The next slice's budget and threads, from how fast the last ones were."""

    def __init__(self, most_threads: int) -> None:
        self.most_threads = most_threads
        self._budget, self._slices, self._telling = FIRST_BUDGET, 0, 0
        self._rates: dict[int, float] = {}

    @property
    def threads(self) -> int:
        """Threads of the next slice. A short run is over before others could help."""
        if self._slices == 0 or self.most_threads == 1:
            return 1
        if self._is_trial:
            return 1 if self._best == self.most_threads else self.most_threads
        return self._best

    @property
    def budget(self) -> int:
        """Packets that a core may run in the next slice."""
        return max(FIRST_BUDGET, self._budget // (TRIAL_SHARE if self._is_trial else 1))

    @property
    def _best(self) -> int:
        """The faster number of threads; the most until both are known."""
        if len(self._rates) < 2:
            return self.most_threads
        return max(self._rates, key=self._rates.__getitem__)

    @property
    def _is_trial(self) -> bool:
        return self.most_threads > 1 and self._telling % TRIAL_EVERY == TRIAL_EVERY // 2

    def note(self, packets: int, seconds: float) -> None:
        """Take note of the slice that is over; `packets` are those of all cores."""
        seconds = max(seconds, 1e-6)
        share = TRIAL_SHARE if self._is_trial else 1
        telling = self._slices > 0 and seconds >= TELLING_SECONDS / share
        if telling:
            self._rates[self.threads] = packets / seconds
        factor = SLICE_SECONDS / seconds / share
        self._budget = max(FIRST_BUDGET, int(self._budget * min(4.0, factor)))
        self._slices += 1
        self._telling += telling

"""Every random draw of the simulation, from one seed."""

from zlib import crc32

import numpy as np


class Streams:
    """Named child streams of one seed.

    Each part of the simulation draws from its own, so that a new draw in one part leaves the others as they were.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> np.random.Generator:
        """Return a new generator at the beginning of the stream of this name."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, crc32(name.encode())])))

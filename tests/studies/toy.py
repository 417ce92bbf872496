"""A study that is computed in no time, for tests: python toy.py FOLDER [options]."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from runner import Study, main


def line(slope: float, kind: str, seed: int) -> dict[str, float]:
    time.sleep(0.05)
    return {"height": slope * seed + len(kind), "depth": -0.1 * seed}


SETTINGS = [{"slope": slope, "kind": kind} for slope in (0.1, 1.0) for kind in ("a", "bb")]
STUDY = Study("toy", "How high?", line, SETTINGS, 0.1, {"": 1e-9})

if __name__ == "__main__":
    raise SystemExit(main(STUDY, __file__, sys.argv[2:], Path(sys.argv[1])))

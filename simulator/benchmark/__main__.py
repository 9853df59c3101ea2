"""The child of `simulator.benchmark.process`: measures one case, writes JSON lines to stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

from isa.errors import Ftm7004Error
from simulator.benchmark.cases import Case
from simulator.benchmark.measuring import blas, measure, measure_first

INTERRUPTED = 130


def main() -> int:
    """Measure what the arguments say: `first` or `repeated`, and a case as JSON."""
    what, text = sys.argv[1:]
    case = Case(**json.loads(text))
    try:
        if what == "first":
            _say({"result": measure_first(case)})
        else:
            _say({"result": {**measure(case, lambda step: _say({"step": step})), "blas": blas()}})
    except Ftm7004Error as error:
        _say({"error": str(error), "status": error.status})
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""The storm of tests/faults, for as long as it is wanted: jobs come in all the time while everything is killed.

    python -m bench.soak [--minutes 60] [--workers 4] [--jobs 200] [--seed 1] [--keep FOLDER]

Needs Debian's postgresql and redis-server (the servers are its own, on free ports) and requirements-dev.txt. About half
of `--jobs` wait at any time. Prints the figures as JSON; the exit status is 1 where a job was lost or ended twice, or a
process or a scratch folder was left.
"""

from __future__ import annotations

import sys

from tests.faults import storm

if __name__ == "__main__":
    if not any(argument.startswith("--minutes") for argument in sys.argv[1:]):
        sys.argv += ["--minutes", "60"]
    sys.exit(storm.main())

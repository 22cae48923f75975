"""Tests of gpu_scripts: each script as its caller runs it, a process of its own, in a project root that behaves as the
official one. `fake_*` write such roots and packages; `script_server` keeps a script loaded for several tests.
"""

import sys
from pathlib import Path

# A script finds the package `common` beside itself; these tests look into it too.
sys.path.append(str(Path(__file__).resolve().parents[2] / "gpu_scripts"))

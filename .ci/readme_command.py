"""Prints the N-th command of the README's first code block: what a reader pastes is what is tested."""

import re
import sys
from pathlib import Path

readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
block = re.search(r"```(?:bash|sh)\n(.*?)```", readme, re.DOTALL)
commands = [line for line in block[1].splitlines() if line.strip() and not line.startswith("#")] if block else []
if len(commands) != 2:
    sys.exit(f"README.md must begin with a block of two commands, not {len(commands)}")
print(commands[int(sys.argv[1]) - 1])

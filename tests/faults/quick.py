"""A command as light as can be, run by the hundred: it copies its input after a while, and leaves a grandchild behind.

    quick.py SECONDS INPUT OUTPUT [OUTPUT]

SECONDS: how long it works. The grandchild has a session of its own and would live for ten minutes.
"""

import os
import shutil
import sys
import time

seconds, source, *targets = sys.argv[1:]
if os.fork() == 0:
    os.setsid()
    os.execvp("sleep", ["sleep", "600"])
time.sleep(float(seconds))
for target in targets:
    shutil.copyfile(source, target + ".part")
    os.replace(target + ".part", target)
print("PROGRESS 1.0", flush=True)

"""What keeps the service running.

`worker` is the worker process, `supervisor` runs server and worker as children of quickstart, `terminal` does a job
from the command line, `health` and `metrics_view` answer probes, `checks` are system checks.
"""

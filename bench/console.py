"""What the console's pages cost the database with 1,000 and with 1,000,000 covers: a second at most, each.

    python -m bench.console [--rows 1000000] [--samples 20]

Runs on SQLite and, where DATABASE_URL names a PostgreSQL server, there too, each in a database of its own that is
deleted afterwards. Prints, in milliseconds, the p95 and the median of the time that each page waits for the database,
and the median of its whole time; `cold` is the dashboard of a process that has kept nothing yet, and counts in the
background.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from bench.queue import Tables, percentile95, run_on_databases

LIMIT_MS = 1000.0


class Console(Tables):
    def run(self) -> int:
        from django.contrib.auth.models import User
        from django.test import Client

        client = Client()
        client.force_login(User.objects.create_superuser("root"))
        worst = 0.0
        filled = 0
        for rows in (1000, self.rows):
            self.fill_with(rows - filled)
            filled = rows
            pages = self.pages(client)
            print(f"  {rows:,} covers: in the database p95 (median), whole page median, ms", flush=True)
            for name, page in pages.items():
                waits, wholes = self.times(page)
                worst = max(worst, percentile95(waits))
                median, whole = statistics.median(waits), statistics.median(wholes)
                print(f"    {name:>38}: {percentile95(waits):7.1f} ({median:.1f}) {whole:7.1f}", flush=True)
        return 0 if worst <= LIMIT_MS else 1

    def times(self, page: Callable[[], Any]) -> tuple[list[float], list[float]]:
        """Of each sample: the milliseconds in the database, and all of them."""
        from django.db import connection

        waits, wholes = [], []
        spent = 0.0

        def watch(execute: Any, *args: Any) -> Any:
            nonlocal spent
            started = time.perf_counter()
            try:
                return execute(*args)
            finally:
                spent += time.perf_counter() - started

        for number in range(self.samples + 1):
            spent, started = 0.0, time.perf_counter()
            with connection.execute_wrapper(watch):
                page()
            if number:  # the first one compiles templates
                waits.append(1000 * spent)
                wholes.append(1000 * (time.perf_counter() - started))
        return waits, wholes

    def fill_with(self, rows: int) -> None:
        """Of ten tenants, one has nine of ten jobs; one of a thousand has failed, some wait and run."""
        for number in range(10):
            user = self.tenant(f"tenant-{number}")
            count = rows * 9 // 10 if number == 0 else rows // 90
            self.add(user, 1, status="succeeded")
            self.multiply(user.pk, count - count // 1000 - 1)
            self.add(user, max(1, count // 1000), status="failed", error="mix_failed")
            self.add(user, 5)
            self.add(user, 1, status="running", host="gpu-1", stage="infer")
        self.analyze()

    def pages(self, client: Any) -> dict[str, Callable[[], Any]]:
        from django.urls import reverse

        from covers.models import CoverJob
        from voiceproject.console import numbers

        covers, index = reverse("admin:covers_coverjob_changelist"), reverse("admin:index")
        job = CoverJob.objects.order_by("-created_at")[500]
        paths = {
            "dashboard": index,
            "list": covers,
            "list, failed": f"{covers}?status__exact=failed",
            "list, one error": f"{covers}?error=mix_failed",
            "list, an error that none has": f"{covers}?error=timed_out",
            "list, running on a host": f"{covers}?running_on=gpu-1",
            "list, last week": f"{covers}?since=week",
            "list, last week, failed, page 2": f"{covers}?since=week&status__exact=failed&p=2",
            "search, an id": f"{covers}?q={job.pk}",
            "search, the beginning of an id": f"{covers}?q={str(job.pk)[:8]}",
            "search, a large tenant": f"{covers}?q=tenant-0",
            "search, a small tenant that failed": f"{covers}?q=tenant-7&status__exact=failed",
            "search, nothing found": f"{covers}?q=no-such-request",
            "job": reverse("admin:covers_coverjob_change", args=[job.pk]),
        }

        def get(path: str) -> Callable[[], Any]:
            def ask() -> None:
                response = client.get(path)
                assert response.status_code == 200, (path, response.status_code)

            return ask

        def cold() -> None:
            numbers._days.clear()
            numbers.HISTORY.forget()
            get(index)()

        return {"dashboard, cold": cold} | {name: get(path) for name, path in paths.items()}


def main() -> int:
    def run(options: Any) -> int:
        return Console(options.rows, 0, options.samples).run()

    return run_on_databases("bench.console", __doc__ or "", run, samples=20)


if __name__ == "__main__":
    sys.exit(main())

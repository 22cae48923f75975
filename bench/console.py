"""What the console's pages cost the database with 1,000 and with 1,000,000 covers: .2 s at most, each.

    python -m bench.console [--rows 1000000] [--samples 20] [--keep FOLDER]

Runs on SQLite and, where DATABASE_URL names a PostgreSQL server, there too, each in a database of its own that is
deleted afterwards, or kept for the next run (`--keep`; of PostgreSQL the folder has nothing). One of fifty covers has
failed, for one of 40 causes. Prints, in milliseconds, the p95 and the median of the time that each page waits for the
database, the median of the processor time that this costs the database, and the median of the page's whole time;
`cold` is the dashboard of a process that has kept nothing yet, and counts in the background.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.queue import Tables, percentile95, run_on_databases

LIMIT_MS = 200.0


def server_seconds() -> float:
    """The processor time of PostgreSQL's process for this connection; nan where that is another machine's."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        path = Path(f"/proc/{cursor.fetchone()[0]}/schedstat")
    return int(path.read_text().split()[0]) / 1e9 if path.exists() else float("nan")


class Console(Tables):
    def run(self) -> int:
        from django.contrib.auth.models import User
        from django.test import Client

        from covers.models import CoverJob

        client = Client()
        root = User.objects.filter(username="root").first() or User.objects.create_superuser("root")
        client.force_login(root)
        worst = 0.0
        for rows in (1000, self.rows):
            filled = CoverJob.objects.count()
            if filled > rows < self.rows:
                continue  # It was kept.
            if filled < rows:
                self.fill_with(rows - filled)
            pages = self.pages(client)
            print(f"  {rows:,} covers: in the database p95 (median), processor, whole page median, ms", flush=True)
            for name, page in pages.items():
                waits, costs, wholes = self.times(page)
                worst = max(worst, percentile95(waits))
                median, cost, whole = (statistics.median(values) for values in (waits, costs, wholes))
                over = "  OVER" if percentile95(waits) > LIMIT_MS else ""
                print(f"    {name:>38}: {percentile95(waits):7.1f} ({median:.1f}) {cost:6.1f} {whole:7.1f}{over}",
                      flush=True)  # fmt: skip
        return 0 if worst <= LIMIT_MS else 1

    def times(self, page: Callable[[], Any]) -> tuple[list[float], list[float], list[float]]:
        """Of each sample, in milliseconds: the time in the database, the processor time that it took there, and all.

        On a busy machine the second is what the page costs. It is that of this connection's process, or of this thread
        within its statements on SQLite, so without what the dashboard counts in the background.
        """
        from django.db import connection

        waits, costs, wholes = [], [], []
        waited = worked = 0.0
        sqlite = connection.vendor == "sqlite"

        def watch(execute: Any, *args: Any) -> Any:
            nonlocal waited, worked
            started, began = time.perf_counter(), time.thread_time()
            try:
                return execute(*args)
            finally:
                waited += time.perf_counter() - started
                worked += time.thread_time() - began

        for number in range(self.samples + 1):
            before = 0.0 if sqlite else server_seconds()
            waited, worked, started = 0.0, 0.0, time.perf_counter()
            with connection.execute_wrapper(watch):
                page()
            whole = time.perf_counter() - started
            if number:  # the first one compiles templates
                waits.append(1000 * waited)
                costs.append(1000 * (worked if sqlite else server_seconds() - before))
                wholes.append(1000 * whole)
        return waits, costs, wholes

    def fill_with(self, rows: int) -> None:
        """Of ten tenants, one has nine of ten jobs. One of fifty has failed; some wait and run."""
        from django.db import connection
        from django.utils import timezone

        sqlite = connection.vendor == "sqlite"
        with connection.cursor() as cursor:
            if sqlite:
                cursor.execute("PRAGMA cache_size = -1000000")  # KiB; rows come in the order of no index
        cause = "'torch.OutOfMemoryError: CUDA out of memory (' || (i % 40) || ')'"
        request = "lower(hex(randomblob(16)))" if sqlite else "replace(gen_random_uuid()::text, '-', '')"
        own = {"request_id": request, "title": "'Song ' || i || ' - Voice ' || (i % 97)"}
        for number in range(10):
            user = self.tenant(f"tenant-{number}")
            count = rows * 9 // 10 if number == 0 else rows // 90
            failed, between = max(1, count // 50), max(1, rows // count)
            ages = {name: self.ago(f"i * {between} - {later}") for name, later in
                    (("created_at", 0), ("started_at", 9), ("finished_at", 70))}  # fmt: skip
            self.add(user, 1, status="succeeded", title="Song", duration_seconds=180.0)
            self.multiply(user.pk, max(1, count - failed - 7), "status = 'succeeded'", **own, **ages)
            self.add(user, 1, status="failed", error="inference_failed", host="gpu-1", finished_at=timezone.now(),
                     cause="torch.OutOfMemoryError: CUDA out of memory (0)",
                     error_detail="a line of what the command wrote\n" * 60)  # fmt: skip
            ages = {name: self.ago(f"i * {50 * between} - {later}") for name, later in
                    (("created_at", 0), ("started_at", 9), ("finished_at", 50))}  # fmt: skip
            self.multiply(user.pk, failed, "status = 'failed'", **own, **ages, cause=cause)
            self.add(user, 5)
            self.add(user, 1, status="running", host="gpu-1", stage="infer")
        self.analyze()

    def pages(self, client: Any) -> dict[str, Callable[[], Any]]:
        from django.contrib.admin import site
        from django.urls import reverse

        from covers.models import CoverJob
        from voiceproject.console import numbers, paging
        from voiceproject.console.pages import hours

        created = list(site._registry[CoverJob].list_display).index("created") + 1
        covers, index = reverse("admin:covers_coverjob_changelist"), reverse("admin:index")
        job = CoverJob.objects.order_by("-created_at")[500]
        paths = {
            "dashboard": index,
            "list": covers,
            "list, failed": f"{covers}?status__exact=failed",
            "list, one error": f"{covers}?error=inference_failed",
            "list, an error that none has": f"{covers}?error=timed_out",
            "list, running on a host": f"{covers}?running_on=gpu-1",
            "list, last week": f"{covers}?since=week",
            "list, last week, failed, page 2": f"{covers}?since=week&status__exact=failed&p=2",
            "search, an id": f"{covers}?q={job.pk}",
            "search, the beginning of an id": f"{covers}?q={str(job.pk)[:8]}",
            "search, a large tenant": f"{covers}?q=tenant-0",
            "search, a small tenant that failed": f"{covers}?q=tenant-7&status__exact=failed",
            "search, nothing found": f"{covers}?q=no-such-request",
            "search, the beginning of a request id": f"{covers}?q={job.request_id[:9]}",
            "search, a word of a cause": f"{covers}?q=OutOfMemory",
            "search, a song": f"{covers}?q=Song 4711",
            "search, how tenants begin": f"{covers}?q=tenant-",
            "list, the oldest first": f"{covers}?o={created}",
            "list, the last page": f"{covers}?p={min(CoverJob.objects.count(), paging.EXACT) // 50}",
            "list, one cause": f"{covers}?cause={quote('torch.OutOfMemoryError: CUDA out of memory (0)')}",
            "failures, 30 days": reverse("admin:failures") + "?period=month",
            "tenant": reverse("admin:voiceproject_tenant_change", args=[job.tenant_id]),
            "job, live part": reverse("admin:covers_coverjob_live", args=[job.pk]),
            "job": reverse("admin:covers_coverjob_change", args=[job.pk]),
        }

        def get(path: str) -> Callable[[], Any]:
            def ask() -> None:
                response = client.get(path)
                assert response.status_code == 200, (path, response.status_code)

            return ask

        def cold() -> None:
            numbers._days.clear()
            hours.forget()
            numbers.HISTORY.forget()
            get(index)()

        return {"dashboard, cold": cold} | {name: get(path) for name, path in paths.items()}


def main() -> int:
    def run(options: Any) -> int:
        return Console(options.rows, 0, options.samples).run()

    return run_on_databases("bench.console", __doc__ or "", run, samples=20)


if __name__ == "__main__":
    sys.exit(main())

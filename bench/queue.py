"""What a claim and a list cost as the tables grow: both p95 must stay within twice that of small tables.

    python -m bench.queue [--rows 1000000] [--queued 10000] [--samples 200]

Runs on SQLite and, where DATABASE_URL names a PostgreSQL server, there too, each in a database of its own that is
deleted afterwards. Claims: 10 and `--queued` jobs wait, half of them of a tenant at its cap; the other half is once of
ten tenants, once of one tenant each. Lists: a page of 50 over the API, of a tenant that has 1,000 and that has `--rows`
jobs, and pages filtered by a status that few of them have. Prints milliseconds and ratios, small and large in turns, so
that what else the machine does hits both alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 2.0


def percentile95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


Times = dict[str, tuple[float, float]]


def measure(samples: int, **actions: Callable[[], Any]) -> Times:
    """(p95, median) of each action in ms, all of them in turns."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(samples + 10):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if number >= 10:  # the first ones fill caches
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: (percentile95(values), statistics.median(values)) for name, values in times.items()}


class Tables:
    def __init__(self, rows: int, queued: int, samples: int) -> None:
        self.rows, self.queued, self.samples = rows, queued, samples
        self.worst = 0.0

    def report(self, what: str, times: Times) -> None:
        (first, small), *others = times.items()
        print(f"  {what}: p95 (median)\n    {first:>30}: {small[0]:7.2f} ({small[1]:.2f}) ms")
        for name, value in others:
            ratio = value[0] / small[0]
            self.worst = max(self.worst, ratio)
            print(
                f"    {name:>30}: {value[0]:7.2f} ({value[1]:.2f}) ms = {ratio:.2f} ({value[1] / small[1]:.2f}) times"
            )
        sys.stdout.flush()

    def tenant(self, name: str) -> Any:
        from django.contrib.auth.models import User

        from voiceproject.tenants.models import Tenant

        user, _ = User.objects.get_or_create(username=name)
        Tenant.objects.get_or_create(user=user)
        return user

    def add(self, user: Any, count: int, **fields: Any) -> None:
        from covers.models import CoverJob

        jobs = (CoverJob(tenant=user, song_hash="0" * 64, **fields) for _ in range(count))
        CoverJob.objects.bulk_create(jobs, batch_size=500)

    def fill(self, queued: int, tenants: int) -> None:
        """One tenant at its cap of 4 with half of the queued jobs; others with the rest."""
        from covers.models import CoverJob

        CoverJob.objects.all().delete()
        capped = self.tenant("capped")
        self.add(capped, queued // 2)
        self.add(capped, 4, status="running", host="elsewhere")
        for number in range(tenants):
            self.add(self.tenant(f"t{number}"), queued // 2 // tenants)
        self.analyze()

    def analyze(self) -> None:
        from django.db import connection

        # PostgreSQL does this by itself, a minute later.
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    def claim(self) -> None:
        from django.db import transaction

        from covers.models import CoverJob

        with transaction.atomic():
            job = CoverJob.claim("w", "h", 1, 4)
            assert job is not None and job.tenant.username != "capped"
            transaction.set_rollback(True)  # The next one finds the same queue.

    def claims(self) -> None:
        found: Times = {}
        for name, queued, tenants in (
            ("10", 10, 5),
            (f"{self.queued:,} of 11 tenants", self.queued, 10),
            (f"{self.queued:,} of {self.queued // 2 + 1:,} tenants", self.queued, self.queued // 2),
            ("10 again", 10, 5),
        ):
            self.fill(queued, tenants)
            found |= {name: measure(self.samples, it=self.claim)["it"]}
        # The small table before and after: the slower machine of the two is the one to compare with.
        small = max(found.pop("10"), found.pop("10 again"))
        self.report("a claim with so many queued jobs", {"10": small} | found)

    def lists(self) -> None:
        from django.db import connection
        from rest_framework.test import APIClient

        from covers.models import CoverJob
        from voices.keys.models import ApiKey

        CoverJob.objects.all().delete()
        clients = {}
        for name, count in (("1,000", 1000), (f"{self.rows:,}", self.rows)):
            user = self.tenant(f"list-{count}")
            self.add(user, min(count, 1000) - 50, status="succeeded")
            if count > 1000:
                self.multiply(user.pk, count - 1000)
            self.add(user, 50, status="failed", error="mix_failed")
            _, secret = ApiKey.objects.issue(user, "bench")
            clients[name] = APIClient(headers={"X-API-Key": secret})
        with connection.cursor() as cursor:
            # The failed ones are spread over the table, as they are in life.
            cursor.execute("SELECT count(*) FROM covers_coverjob")
            print(f"  {cursor.fetchone()[0]:,} rows", flush=True)
        self.analyze()

        def get(client: Any, query: str = "") -> Callable[[], Any]:
            def ask() -> Any:
                response = client.get(f"/api/v1/cover/jobs?page_size=50{query}")
                assert response.status_code == 200 and len(response.json()["results"]) == 50, response.content
                return response

            return ask

        self.report(
            "a page of the list, with so many jobs of the tenant",
            measure(self.samples, **{n: get(c) for n, c in clients.items()}),
        )
        failed = {name: get(client, "&status=failed") for name, client in clients.items()}
        self.report("a page of those that failed", measure(self.samples, **failed))
        deep = {}
        for name, client in clients.items():
            url = get(client)().json()["next"]
            deep[name] = lambda client=client, url=url: client.get(url)
        self.report("the second page", measure(self.samples, **deep))
        look = measure(self.samples, it=lambda: (CoverJob.expire(), CoverJob.recover(30, 3)))["it"]
        print(f"  a worker's look at them all: {look[0]:.2f} ({look[1]:.2f}) ms", flush=True)

    def ago(self, seconds: str) -> str:
        """In SQL: the moment so many seconds ago; seconds: an expression, in which `i` is the row's number."""
        from django.db import connection

        if connection.vendor == "sqlite":
            return f"strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || ({seconds}) || ' seconds')"
        return f"now() - ({seconds}) * interval '1 second'"

    def multiply(self, tenant: int, count: int, like: str = "1 = 1", **others: str) -> None:
        """Copies one of the tenant's rows that is `like` so, each copy with an id and a second of its own.

        others: columns that each copy has of its own, too, as SQL expressions, in which `i` is the copy's number.
        """
        from django.db import connection

        from covers.models import CoverJob

        own = {"created_at": self.ago("i"), **others}
        if connection.vendor == "sqlite":
            numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
            own["id"] = "lower(hex(randomblob(16)))"
        else:
            numbers = f"WITH n AS (SELECT i FROM generate_series(1, {count}) i)"
            own["id"] = "gen_random_uuid()"
        names = ", ".join(f'"{field.column}"' for field in CoverJob._meta.fields if field.column not in own)
        with connection.cursor() as cursor:
            cursor.execute(
                f"{numbers} INSERT INTO covers_coverjob ({', '.join(own)}, {names}) "
                f"SELECT {', '.join(own.values())}, {names} FROM n, "
                f"(SELECT {names} FROM covers_coverjob WHERE tenant_id = {tenant} AND {like} LIMIT 1) one"
            )

    def run(self) -> int:
        self.claims()
        self.lists()
        return 0 if self.worst <= LIMIT else 1


def on_this_database(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    import django

    django.setup()
    from django.conf import settings
    from django.db import connection

    settings.ALLOWED_HOSTS = ["testserver"]
    if options.keep and connection.vendor == "sqlite":
        Path(options.keep).mkdir(parents=True, exist_ok=True)
        connection.settings_dict["TEST"]["NAME"] = str(Path(options.keep, "kept.sqlite3"))
    connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False, keepdb=bool(options.keep))
    try:
        print(connection.vendor, flush=True)
        return run(options)
    finally:
        connection.creation.destroy_test_db(
            settings.DATABASES["default"]["NAME"], verbosity=0, keepdb=bool(options.keep)
        )


def run_on_databases(
    module: str, description: str, run: Callable[[argparse.Namespace], int], samples: int = 200
) -> int:
    """Calls `run` in a process for each database, SQLite first; the worst status of them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=samples)
    parser.add_argument("--keep", type=os.path.abspath, help="a folder: the databases are kept, and used again")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return on_this_database(run, options)
    urls = [""]
    if os.environ.get("DATABASE_URL", "").startswith("postgres"):
        urls.append(os.environ["DATABASE_URL"])
    results = []
    for url in urls:
        with tempfile.TemporaryDirectory() as folder:
            environment = {
                **os.environ,
                "DATA_DIR": folder,
                "DJANGO_SETTINGS_MODULE": "voiceproject.settings",
                "LOG_LEVEL": "ERROR",
                "ENV_FILE": os.devnull,
                "REDIS_URL": "",
                "STORAGE_URL": "",
            }
            environment.pop("DATABASE_URL", None)
            if url:
                environment["DATABASE_URL"] = url
            command = [sys.executable, "-m", module, "--here", *sys.argv[1:]]
            results.append(subprocess.run(command, env=environment, cwd=Path(__file__).parent.parent).returncode)
    return max(results)


def main() -> int:
    return run_on_databases(
        "bench.queue", __doc__ or "", lambda options: Tables(options.rows, options.queued, options.samples).run()
    )


if __name__ == "__main__":
    sys.exit(main())

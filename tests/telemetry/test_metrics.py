"""/metrics: what it counts, over real web and worker processes, and that deploy/ knows all of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import requests
import yaml
from django.conf import settings as django_settings
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.test import APIClient

from covers import tasks
from covers.models import CoverJob
from tests.fakes.collectors import Collectors
from tests.fakes.engine import FakeEngine
from tests.support.audio import upload, wav_bytes
from tests.support.covers import INFER, RATE, SEPARATE, song
from tests.support.running.processes import database_url
from tests.support.running.servers import free_port
from tests.support.tenants import Tenant
from tests.support.waiting import until
from voiceproject.errors import EngineTimeout
from voiceproject.jobs.models import WorkerHost
from voiceproject.operations import metrics_view
from voiceproject.telemetry import metrics
from voiceproject.webhooks.models import WebhookDelivery

pytestmark = pytest.mark.usefixtures("fresh_covers")

DEPLOY = Path(django_settings.BASE_DIR) / "deploy"
TOKEN = "a-token-for-prometheus"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Every test counts from nothing, whatever the tests of another file have counted in this process."""

    def forget() -> None:
        metrics._begin_anew()
        shutil.rmtree(Path(django_settings.DATA_DIR) / "metrics", ignore_errors=True)

    forget()
    yield
    forget()


@pytest.fixture
def counted(settings: Any) -> None:
    settings.METRICS_TOKEN = TOKEN


def parse(text: str) -> dict[str, float]:
    """Sample by its name and labels, the labels in the order of their names: `a_total{b="c"}` -> 1.0"""
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[sample.name.removeprefix("voiceproject_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return samples


def scraped() -> dict[str, float]:
    response = Client().get("/metrics", headers=AUTHORIZED)
    assert response.status_code == 200
    return parse(response.content.decode())


def test_without_a_token_there_is_no_such_path_and_nothing_is_counted(api: APIClient) -> None:
    assert api.get("/api/v1/cover/jobs").status_code == 200
    response = api.get("/metrics", headers={"Authorization": "Bearer "})
    assert (response.status_code, response.json()["error"]) == (404, "not_found")
    assert metrics._own_samples() == {}
    assert not (Path(django_settings.DATA_DIR) / "metrics").exists()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"Authorization": f"Basic {TOKEN}"}, "invalid_api_key"),
        ({"X-API-Key": TOKEN}, "missing_api_key"),
    ],
)
def test_only_the_token_opens_it(counted: None, db: None, headers: dict[str, str], code: str) -> None:
    response = Client().get("/metrics", headers=headers)
    assert (response.status_code, response.json()["error"]) == (401, code)
    assert response["WWW-Authenticate"] == 'Bearer realm="metrics"'


def test_requests_are_counted_by_template_however_many_ids_methods_and_paths_come(
    counted: None, api: APIClient
) -> None:
    for number in range(5):
        api.get(f"/api/v1/cover/jobs/00000000-0000-4000-8000-00000000000{number}")
        api.get(f"/nowhere/{number}")
        api.generic(f"METHOD{number}", "/health")
    api.get("/api/v1/cover/jobs")
    api.get("/static/voiceproject/icon.svg")
    found = scraped()
    assert found['http_requests_total{method="GET",route="/api/v1/cover/jobs/<uuid:pk>",status="404"}'] == 5
    assert found['http_requests_total{method="GET",route="none",status="404"}'] == 5
    assert found['http_requests_total{method="other",route="/health",status="405"}'] == 5
    assert found['http_requests_total{method="GET",route="/api/v1/cover/jobs",status="200"}'] == 1
    assert found['http_requests_total{method="GET",route="/static/",status="200"}'] == 1
    assert found['http_request_seconds_count{method="GET",route="none"}'] == 5
    assert sum(name.startswith("http_requests_total") for name in found) == 5


@pytest.mark.django_db(transaction=True)
def test_speech_is_timed_by_how_it_is_sent_and_failures_by_their_class(
    counted: None, api: APIClient, engine: FakeEngine, reference_wav: bytes
) -> None:
    def speak(**fields: str) -> Any:
        return api.post(
            "/api/v1/voice/synthesize",
            {"text": "Ten chars.", "reference_audio": upload(reference_wav), **fields},
        )

    assert speak().status_code == 200
    assert b"".join(speak(stream="true").streaming_content)
    engine.failure = EngineTimeout()
    assert speak().status_code == 504
    assert speak(text="").status_code == 400
    found = scraped()
    for mode in ("wait", "stream"):
        labels = f'{{engine="builtin",mode="{mode}"}}'
        assert found[f"synthesis_seconds_count{labels}"] == 1
        assert found[f"synthesis_first_byte_seconds_count{labels}"] == 1
        assert found[f"synthesis_audio_seconds_total{labels}"] == pytest.approx(1.0)
    assert found['engine_errors_total{engine="builtin",error="engine_timeout"}'] == 1
    assert found['jobs_ended_total{error="",kind="synthesis",status="succeeded"}'] == 2
    assert found['jobs_ended_total{error="timed_out",kind="synthesis",status="failed"}'] == 1
    assert sum(value for name, value in found.items() if name.startswith("engine_errors")) == 1


@pytest.mark.django_db(transaction=True)
def test_stages_are_timed_and_refusals_counted(
    counted: None,
    submit: Callable[..., Any],
    habits: Callable[..., None],
    settings: Any,
) -> None:
    settings.COVER_MAX_QUEUED = 1
    submit()
    assert submit().status_code == 429
    tasks.run_covers.fn()
    habits(infer="oom")
    submit()
    tasks.run_covers.fn()
    found = scraped()
    assert found['refusals_total{error="too_many_jobs"}'] == 1
    assert {name: found[f'cover_stage_seconds_count{{stage="{name}"}}'] for name in ("separate", "infer", "mix")} == {
        "separate": 2, "infer": 1, "mix": 1,
    }  # fmt: skip
    assert found['engine_errors_total{engine="infer",error="out_of_memory"}'] == 1
    assert found['jobs_ended_total{error="out_of_memory",kind="cover",status="failed"}'] == 1


@pytest.mark.django_db(transaction=True)
def test_queues_and_workers_are_what_the_database_says_now(
    counted: None, engine: FakeEngine, submit: Callable[..., Any], tenant: Tenant
) -> None:
    assert scraped()['queue_oldest_seconds{queue="covers"}'] == 0
    submit()
    submit()
    first = CoverJob.objects.order_by("created_at").first()
    CoverJob.objects.filter(pk=first.pk).update(updated_at=timezone.now() - timedelta(seconds=90))
    late = timezone.now() - timedelta(seconds=40)
    WebhookDelivery.objects.create(tenant=tenant.user, job_id=first.pk, next_attempt_at=late)
    WebhookDelivery.objects.create(
        tenant=tenant.user, job_id=first.pk, next_attempt_at=timezone.now() + timedelta(hours=1)
    )
    for name, seconds, draining in (("a", 1, False), ("b", 1, True), ("gone", 90, False)):
        WorkerHost.objects.create(name=name, seen_at=timezone.now() - timedelta(seconds=seconds), draining=draining)
    found = scraped()
    assert found['jobs{queue="covers",status="queued"}'] == 2
    assert found['jobs{queue="covers",status="running"}'] == 0
    assert found['jobs{queue="webhooks",status="queued"}'] == 1
    assert found['queue_oldest_seconds{queue="covers"}'] == pytest.approx(90, abs=5)
    assert found['queue_oldest_seconds{queue="webhooks"}'] == pytest.approx(40, abs=5)
    assert (found['worker_hosts{state="working"}'], found['worker_hosts{state="draining"}']) == (1, 1)
    assert (found["database_up"], found['engine_available{engine="builtin"}']) == (1, 1)
    assert found["storage_free_bytes"] > 1e6


def test_without_its_database_it_tells_what_it_has_counted(
    counted: None, api: APIClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Iterator[Any]:
        raise OperationalError("gone")

    api.get("/api/v1/cover/jobs")
    monkeypatch.setattr(metrics_view, "_database_state", away)
    found = scraped()
    assert found["database_up"] == 0
    assert found['http_requests_total{method="GET",route="/api/v1/cover/jobs",status="200"}'] == 1
    assert not any(name.startswith("jobs{") for name in found)


# --- over processes ------------------------------------------------------------------------------------------

COUNT = """
import os, sys
from django.conf import settings
settings.configure(METRICS_TOKEN="on", DATA_DIR=sys.argv[3])
from voiceproject.telemetry import metrics
for _ in range(int(sys.argv[1])):
    metrics.engine_failed("builtin", "engine_error")
    metrics.synthesis_made("builtin", "wait", 0.3, 2.0)
print("counted", flush=True)
if sys.argv[2] == "fork" and os.fork() == 0:
    metrics.engine_failed("builtin", "engine_error")
    metrics._process.write()
    os._exit(0)
if sys.argv[2] == "stay":
    metrics._process.write()
    print("written", flush=True)
    sys.stdin.read()
"""
FAILED = 'engine_errors_total{engine="builtin",error="engine_error"}'


def counting(times: int, then: str = "end") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COUNT, str(times), then, str(django_settings.DATA_DIR)],
        cwd=django_settings.BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_nothing_is_lost_or_doubled_when_processes_fork_end_and_are_killed(counted: None) -> None:
    def total() -> dict[str, float]:
        return parse(metrics.exposition().decode())

    def files() -> list[str]:
        return [path.name for path in metrics._process.folder.glob("*-*.json")]

    forked, killed = counting(3, "fork"), counting(5, "stay")
    with forked, killed:
        assert forked.wait(60) == 0
        assert [killed.stdout.readline(), killed.stdout.readline()] == ["counted\n", "written\n"]
        assert total()[FAILED] == 3 + 1 + 5
        assert len(files()) == 1, "those that ended were folded into one, and this one lives"
        killed.kill()
        killed.wait()
    for _ in range(2):
        found = total()
        assert found[FAILED] == 9
        assert files() == []
    assert found['synthesis_seconds_bucket{engine="builtin",le="0.25",mode="wait"}'] == 0
    assert found['synthesis_seconds_bucket{engine="builtin",le="0.5",mode="wait"}'] == 8
    assert found['synthesis_seconds_sum{engine="builtin",mode="wait"}'] == pytest.approx(8 * 0.3)
    metrics.engine_failed("builtin", "engine_error")
    assert total()[FAILED] == 10


def test_a_fold_that_was_cut_short_counts_nothing_twice(counted: None) -> None:
    process = metrics._process
    process.folder.mkdir()
    ended = process.folder / "1-ended.json"
    metrics._write(ended, {("voiceproject_engine_errors_total", (("engine", "builtin"), ("error", "engine_error"))): 4})
    kept = ended.read_bytes()
    assert parse(metrics.exposition().decode())[FAILED] == 4
    ended.write_bytes(kept)  # as though it had been killed before it removed the file
    (process.folder / "2-ended.json").write_text("{")  # and this by a full disk, before files were written whole
    assert parse(metrics.exposition().decode())[FAILED] == 4
    assert not ended.exists()


def test_a_full_disk_costs_no_count_and_no_request(counted: None, settings: Any, small_disk: Path) -> None:
    settings.DATA_DIR = small_disk
    process = metrics._process
    metrics.engine_failed("builtin", "engine_error")
    process.write()
    (small_disk / "filler").write_bytes(bytes(3_000_000))
    with open(small_disk / "rest", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    metrics.engine_failed("builtin", "engine_error")
    process.write()
    assert parse(metrics.exposition().decode())[FAILED] == 2
    (small_disk / "filler").unlink()
    process.write()
    assert json.loads(next(process.folder.glob("*-*.json")).read_text())["samples"]
    metrics._begin_anew()  # lets go of the disk


@contextmanager
def running(module: str, *arguments: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=django_settings.BASE_DIR,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "voiceproject.settings",
                "DATABASE_URL": database_url(),
                "DATA_DIR": str(django_settings.DATA_DIR),
                "METRICS_TOKEN": TOKEN,
                "LOG_FORMAT": "json",
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


@pytest.mark.django_db(transaction=True)
def test_two_web_processes_and_a_worker_are_one_and_one_id_is_followed_through_all_of_them(
    tenant: Tenant, reference_wav: bytes, tmp_path: Path
) -> None:
    port, worker_port = free_port(), free_port()
    base = f"http://127.0.0.1:{port}"
    web_log, worker_log = tmp_path / "web.log", tmp_path / "worker.log"
    environment = {
        "COVER_SEPARATE_CMD_TEMPLATE": SEPARATE,
        "COVER_FIND_VOICE": "false",
        "COVER_INFER_CMD_TEMPLATE": f"{INFER} refuse",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "WORKER_METRICS_PORT": str(worker_port),
    }

    def scrape() -> dict[str, float]:
        answer = requests.get(f"{base}/metrics", headers=AUTHORIZED, timeout=10)
        assert answer.status_code == 200
        return parse(answer.text)

    def answers() -> bool:
        try:
            return requests.get(f"{base}/openapi.json", timeout=20).ok
        except requests.RequestException:
            return False

    with ExitStack() as stack:
        collectors = Collectors()
        stack.callback(collectors.close)
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collectors.port}"
        gunicorn = (
            "gunicorn",
            "voiceproject.asgi",
            "--config",
            "python:voiceproject.serving",
            "--bind",
            f"127.0.0.1:{port}",
        )
        web = stack.enter_context(running(*gunicorn, log=web_log, WEB_PROCESSES="2", WEB_THREADS="4", **environment))
        dramatiq = ("dramatiq", "voiceproject.worker", "--processes", "1", "--threads", "4")
        stack.enter_context(running(*dramatiq, log=worker_log, **environment))
        until(answers, 60)
        created = requests.post(
            f"{base}/api/v1/cover/jobs",
            headers={"X-API-Key": tenant.secret, "X-Request-ID": "follow-me.1"},
            files={"song": wav_bytes(song(1.5), RATE), "reference_voice": reference_wav},
            timeout=30,
        )
        assert created.status_code == 202
        job_id = created.json()["job_id"]
        health = 'http_requests_total{method="GET",route="/favicon.ico",status="302"}'
        pids: set[int] = set()
        for _ in range(40):
            # A new connection each time: both processes take some.
            requests.get(f"{base}/favicon.ico", allow_redirects=False, timeout=10)
        children = Path(f"/proc/{web.pid}/task/{web.pid}/children").read_text().split()
        pids.update(int(child) for child in children)
        assert len(pids) == 2
        # Said by either of them: what only the one that will be killed knows is lost with it.
        until(lambda: all(scrape().get(health) == 40 for _ in range(12)), 20)
        until(lambda: CoverJob.objects.get(pk=job_id).status == "failed", 60)
        failed = 'engine_errors_total{engine="infer",error="inference_failed"}'
        until(lambda: scrape().get(failed) == 1, 10)
        found = scrape()
        assert found['cover_stage_seconds_count{stage="separate"}'] == 1
        assert found['jobs_ended_total{error="inference_failed",kind="cover",status="failed"}'] == 1
        assert found['worker_hosts{state="working"}'] == 1

        # The worker answers for itself too, where it does not share this folder.
        own = requests.get(f"http://127.0.0.1:{worker_port}/metrics", headers=AUTHORIZED, timeout=10)
        assert parse(own.text)[failed] == 1
        assert requests.get(f"http://127.0.0.1:{worker_port}/metrics", timeout=10).status_code == 401

        # A web process is killed and another comes: what it has counted is still there.
        os.kill(min(pids), signal.SIGKILL)
        alive = lambda: set(map(int, Path(f"/proc/{web.pid}/task/{web.pid}/children").read_text().split()))  # noqa: E731
        until(lambda: len(alive() - {min(pids)}) == 2, 30)
        until(answers, 30)
        assert scrape()[health] == 40
        until(lambda: len(list((Path(django_settings.DATA_DIR) / "metrics").glob("*-*.json"))) <= 3, 10)
        until(lambda: {"cover", "separate", "infer"} <= {span["name"] for span in collectors.spans}, 20)

    # The log: from HTTP to the worker, and to the command's own lines, which the row keeps for operators.
    job = CoverJob.objects.get(pk=job_id)
    tenant_id, key_id = str(tenant.user.pk), str(tenant.key.pk)
    (access,) = (line for line in lines(web_log) if line.get("request_id") == "follow-me.1")
    assert (access["message"], access["tenant"], access["key"]) == ("POST /api/v1/cover/jobs 202", tenant_id, key_id)
    said = [line for line in lines(worker_log) if line.get("job") == job_id]
    assert said[0]["message"] == "cover started"
    assert {(line["request_id"], line["tenant"], line["key"]) for line in said} == {("follow-me.1", tenant_id, key_id)}
    ended = [line for line in said if line["message"] == "command ended"]
    assert [line["stage"] for line in ended] == ["separate", "infer"]
    told = json.loads(next(line for line in job.error_detail.splitlines() if line.startswith("{")))
    assert told["VOICEPROJECT_REQUEST_ID"] == "follow-me.1"
    assert (told["VOICEPROJECT_JOB_ID"], told["VOICEPROJECT_TENANT_ID"]) == (job_id, tenant_id)
    assert told["VOICEPROJECT_KEY_ID"] == key_id
    assert f"nothing is sung here request_id=follow-me.1 job={job_id}" in job.error_detail

    # The trace: request -> job -> stage -> command.
    spans = {span["name"]: span for span in collectors.spans if span["trace"] == access["trace_id"]}
    request, cover, infer = spans["POST /api/v1/cover/jobs"], spans["cover"], spans["infer"]
    assert (request["parent"], cover["parent"], infer["parent"]) == ("", request["id"], cover["id"])
    assert request["attributes"]["request_id"] == cover["attributes"]["request_id"] == "follow-me.1"
    assert (cover["attributes"]["error.type"], cover["failed"], infer["failed"]) == ("inference_failed", True, True)
    assert spans["separate"]["parent"] == cover["id"] and not spans["separate"]["failed"]
    assert told["TRACEPARENT"].split("-")[:3] == ["00", access["trace_id"], infer["id"]]
    assert {line["trace_id"] for line in said} == {access["trace_id"]}
    assert request["service"] == cover["service"] == "voiceproject"


# --- deploy/ -------------------------------------------------------------------------------------------------


def queries() -> dict[str, str]:
    """Every PromQL expression of deploy/, by where it stands."""
    found: dict[str, str] = {}
    for group in yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text(encoding="utf-8"))["groups"]:
        found |= {rule["alert"]: rule["expr"] for rule in group["rules"]}
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for number, target in enumerate(panel.get("targets", ())):
            found[f"{panel['title']} {number}"] = target["expr"].replace("$__rate_interval", "1m")
    return found


class Reader:
    """Collects from parsed PromQL which series are selected, and by which labels they are matched and grouped."""

    def __init__(self) -> None:
        self.labels: dict[str, set[str]] = {}

    def read(self, expression: Any) -> set[str]:
        """The series below this node."""
        if isinstance(expression, promql_parser.MatrixSelector):
            return self.read(expression.vector_selector)
        if isinstance(expression, promql_parser.VectorSelector):
            matched = {matcher.name for matcher in expression.matchers.matchers}
            self.labels.setdefault(expression.name, set()).update(matched)
            return {expression.name}
        below: set[str] = set()
        for name in ("lhs", "rhs", "expr", "args"):
            child = getattr(expression, name, None)
            for part in child if isinstance(child, list) else [child]:
                below |= self.read(part) if part is not None else set()
        modifier = getattr(expression, "modifier", None)
        if isinstance(expression, promql_parser.AggregateExpr) and modifier is not None:
            for series in below:
                self.labels[series].update(modifier.labels)
        return below


@pytest.mark.django_db
def test_the_dashboard_and_the_alerts_ask_for_what_there_is_and_leave_nothing_out(
    counted: None, engine: FakeEngine
) -> None:
    reader = Reader()
    for where, query in queries().items():
        try:
            reader.read(promql_parser.parse(query))
        except ValueError as error:
            pytest.fail(f"{where}: {error}")
    has: dict[str, set[str]] = {}  # series -> its labels
    family_of: dict[str, str] = {}
    gauges = {family.name: {*(family.samples[0].labels)} for family in metrics_view.state()}
    for collector in metrics._registry._collector_to_names:
        name, labels = collector._name, set(collector._labelnames)
        suffixes = {"counter": {"_total": set()}, "histogram": {"_bucket": {"le"}, "_count": set(), "_sum": set()}}
        for suffix, more in suffixes[collector._type].items():
            has[name + suffix], family_of[name + suffix] = labels | more, name
    has |= gauges
    family_of |= {name: name for name in gauges}
    asked = {series: labels for series, labels in reader.labels.items() if series != "up"}
    assert set(asked) <= set(has), "a query asks for a metric that nothing counts"
    for series, labels in asked.items():
        assert labels - {"instance", "job"} <= has[series], series
    unseen = {family for series, family in family_of.items()} - {family_of[series] for series in asked}
    assert unseen == set(), "neither the dashboard nor an alert shows it"


def test_every_label_has_few_values() -> None:
    """An id or a text in a label would be a new series each time."""
    bounded = {"method", "route", "status", "error", "engine", "mode", "stage", "kind"}
    for collector in metrics._registry._collector_to_names:
        assert set(collector._labelnames) <= bounded
        assert collector._documentation


def test_prometheus_is_told_of_the_services_that_compose_starts() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    environment = (DEPLOY / "compose.env.example").read_text(encoding="utf-8")
    (port,) = re.findall(r"^WORKER_METRICS_PORT=(\d+)$", environment, re.MULTILINE)
    (scrape,) = config["scrape_configs"]
    targets = dict(target.split(":") for target in scrape["static_configs"][0]["targets"])
    assert set(targets) <= set(services)
    assert targets == {"web": "8000", "worker": port, "gpu-worker": port}
    for name in config["rule_files"]:
        assert (DEPLOY / name).is_file()

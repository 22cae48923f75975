"""Signing in to the console: throttled for each account and each address, and written down."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from voiceproject.console.site import SigninForm
from voiceproject.tenants import signin
from voiceproject.tenants.models import AuditEntry, SigninFailures

PASSWORD = "a long enough one"


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("root", password=PASSWORD)


def sign_in(password: str, username: str = "root", address: str = "10.0.0.1") -> Any:
    client = Client(REMOTE_ADDR=address)
    return client.post(reverse("admin:login"), {"username": username, "password": password, "next": "/admin/"})


def fail(username: str = "root", address: str = "10.0.0.1", password: str = "wrong") -> None:
    """As `sign_in` with a wrong password, without the page around it."""
    request = RequestFactory().post("/", REMOTE_ADDR=address)
    assert not SigninForm(request, {"username": username, "password": password}).is_valid()


def test_an_account_is_closed_after_ten_wrong_passwords_wherever_they_come_from(operator: User) -> None:
    assert sign_in("wrong").status_code == 200
    for number in range(1, signin.ACCOUNT_LIMIT):
        fail(address=f"10.0.{number}.1")
    refused = sign_in(PASSWORD, address="10.9.9.9")
    assert (refused.status_code, refused["Retry-After"]) == (429, "900")
    assert "Too many wrong passwords" in refused.content.decode()
    assert sign_in(PASSWORD, username=" ROOT ", address="10.9.9.9").status_code == 429
    SigninFailures.objects.update(since=timezone.now() - signin.WINDOW - timedelta(seconds=1))
    assert sign_in(PASSWORD, address="10.9.9.9").status_code == 302


def test_an_address_is_closed_after_thirty_wrong_passwords_of_any_accounts(operator: User) -> None:
    for number in range(signin.ADDRESS_LIMIT):
        fail(f"guess-{number}")
    assert SigninFailures.objects.count() == signin.ADDRESS_LIMIT + 1
    assert sign_in(PASSWORD).status_code == 429
    assert SigninFailures.objects.count() == signin.ADDRESS_LIMIT + 1, "who is refused writes nothing"
    assert sign_in(PASSWORD, address="10.0.0.2").status_code == 302


def test_one_ipv6_network_is_one_address(operator: User) -> None:
    for number in range(signin.ADDRESS_LIMIT):
        fail(f"guess-{number}", f"2001:db8::{number:x}:1")
    assert sign_in(PASSWORD, address="2001:db8::ffff").status_code == 429
    assert sign_in(PASSWORD, address="2001:db8:0:1::1").status_code == 302


def test_a_right_password_costs_nothing_and_forgets_the_account_s_failures(operator: User) -> None:
    for _ in range(signin.ACCOUNT_LIMIT - 1):
        fail()
    assert sign_in(PASSWORD).status_code == 302
    address = SigninFailures.objects.get()
    assert address.count == signin.ACCOUNT_LIMIT - 1
    assert sign_in(PASSWORD).status_code == 302
    address.refresh_from_db()
    assert address.count == signin.ACCOUNT_LIMIT - 1


@pytest.mark.django_db(transaction=True)
def test_tries_at_the_same_time_share_the_limit() -> None:
    request = RequestFactory().post("/", REMOTE_ADDR="10.0.0.1")
    start = threading.Barrier(8)
    taken: list[bool] = []

    def guess() -> None:
        start.wait()
        try:
            taken.extend(signin.take_try(request, "root") for _ in range(4))
        finally:
            connection.close()

    threads = [threading.Thread(target=guess) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == signin.ACCOUNT_LIMIT
    assert len(taken) == 32


def test_failures_and_refusals_are_in_the_audit_log_without_the_password(operator: User) -> None:
    for _ in range(signin.ACCOUNT_LIMIT + 5):
        fail(password="hunter2-secret")
    entries = AuditEntry.objects.filter(action__startswith="signin.")
    assert entries.filter(action="signin.failed").count() == signin.ACCOUNT_LIMIT
    assert entries.filter(action="signin.throttled").count() == 1  # A minute of them is one entry.
    assert set(entries.values_list("address", flat=True)) == {"10.0.0.1"}
    assert {entry.details["username"] for entry in entries} == {"root"}
    assert "hunter2" not in str(list(AuditEntry.objects.values()))
    SigninFailures.objects.all().delete()
    sign_in(PASSWORD)
    assert AuditEntry.objects.filter(action="signin", actor=operator).count() == 1


@pytest.mark.django_db
def test_who_signs_in_at_the_console_without_having_asked_for_a_page_gets_its_first_one() -> None:
    User.objects.create_superuser("root", password="a long password")
    response = Client().post("/admin/login/", {"username": "root", "password": "a long password"})
    assert (response.status_code, response["Location"]) == (302, "/admin/")

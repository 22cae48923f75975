"""Signing in to the console: throttled for each account and each address, and written down."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.backends.signed_cookies import SessionStore
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


def test_an_account_is_closed_to_an_address_after_ten_wrong_passwords_from_there(operator: User) -> None:
    assert sign_in("wrong").status_code == 200
    for _ in range(1, signin.PAIR_LIMIT):
        fail()
    refused = sign_in(PASSWORD)
    assert (refused.status_code, refused["Retry-After"]) == (429, "900")
    assert "Too many wrong passwords" in refused.content.decode()
    assert sign_in(PASSWORD, username=" ROOT ").status_code == 429
    # One stranger does not keep anybody else out, wherever they are.
    assert sign_in(PASSWORD, address="10.9.9.9").status_code == 302
    SigninFailures.objects.update(since=timezone.now() - signin.WINDOW - timedelta(seconds=1))
    assert sign_in(PASSWORD).status_code == 302


def test_an_address_is_closed_after_thirty_wrong_passwords_of_any_accounts(operator: User) -> None:
    for number in range(signin.ADDRESS_LIMIT):
        fail(f"guess-{number}")
    rows = SigninFailures.objects.count()
    assert rows == 2 * signin.ADDRESS_LIMIT + 1
    assert sign_in(PASSWORD).status_code == 429
    assert SigninFailures.objects.count() == rows, "who is refused writes nothing"
    assert sign_in(PASSWORD, address="10.0.0.2").status_code == 302


def test_ten_strangers_keep_nobody_out_of_a_known_device(operator: User) -> None:
    known, form = Client(REMOTE_ADDR="10.7.7.7"), {"username": "root", "password": PASSWORD, "next": "/admin/"}
    assert known.post(reverse("admin:login"), form).status_code == 302
    known.post(reverse("admin:logout"))
    looked_at = 0
    for stranger in range(12):
        for _ in range(15):
            request = RequestFactory().post("/", REMOTE_ADDR=f"10.0.{stranger}.1")
            looked_at += not SigninForm(request, {"username": "root", "password": "wrong"}).is_valid() and (
                not getattr(request, "signin_throttled", False)
            )
    assert looked_at == signin.ACCOUNT_LIMIT
    # An address that has done nothing is refused now; the device is let in, from wherever it is.
    assert sign_in(PASSWORD, address="10.8.8.8").status_code == 429
    assert known.post(reverse("admin:login"), form, REMOTE_ADDR="10.0.1.1").status_code == 302
    assert known.post(reverse("account-signin"), form).status_code == 302


def test_a_known_device_has_ten_tries_of_its_own(operator: User) -> None:
    known, form = Client(), {"username": "root", "password": PASSWORD}
    known.post(reverse("account-signin"), form)
    known.post(reverse("account-signout"))
    codes = [known.post(reverse("account-signin"), form | {"password": f"wrong {n}"}).status_code for n in range(12)]
    assert codes == [200] * 10 + [429] * 2
    assert known.post(reverse("account-signin"), form).status_code == 429
    # Its tries are not those of its address, and nobody else's: no row but its own.
    assert SigninFailures.objects.filter(count__gt=0).count() == 1


@pytest.mark.parametrize("change", ["the password", "the user", "the cookie"])
def test_a_device_is_known_to_one_user_with_one_password(change: str, operator: User) -> None:
    other = User.objects.create_superuser("other", password=PASSWORD)
    known = Client()
    known.post(reverse("account-signin"), {"username": "root", "password": PASSWORD})
    (name,) = (name for name in known.cookies if name.startswith("device_"))
    cookie = known.cookies[name]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert PASSWORD not in cookie.value and "root" not in cookie.value
    request = RequestFactory().post("/")
    request.COOKIES = {name: cookie.value}
    assert signin._device(request, "root")
    match change:
        case "the password":
            operator.set_password("another long one")
            operator.save()
            assert signin._device(request, "root") is None
        case "the user":
            assert signin._device(request, "other") is None
            assert signin._device(request, "nobody") is None
            request.COOKIES = {signin._cookie(other): cookie.value}
            assert signin._device(request, "other") is None
        case _:
            for value in (cookie.value[:-1], cookie.value + "x", "", "a:b:c", "\x00"):
                request.COOKIES = {name: value}
                assert signin._device(request, "root") is None


def test_another_password_makes_the_device_known_anew(operator: User) -> None:
    client = Client()
    client.post(reverse("account-signin"), {"username": "root", "password": PASSWORD})
    new = {"old_password": PASSWORD, "new_password1": "a new long one 7", "new_password2": "a new long one 7"}
    assert client.post(reverse("account-password"), new).status_code == 302
    request = RequestFactory().post("/")
    request.COOKIES = {name: morsel.value for name, morsel in client.cookies.items()}
    assert signin._device(request, "root")


PASSWORD_PAGES = ("account-password", "admin:password_change", "account-erase")


@pytest.mark.parametrize("page", PASSWORD_PAGES)
def test_of_sixty_wrong_old_passwords_in_a_session_ten_are_looked_at(page: str, operator: User) -> None:
    client = Client()
    client.force_login(operator)
    form = {"new_password1": "a new long one 7", "new_password2": "a new long one 7", "username": "root"}
    with mock.patch.object(User, "check_password", autospec=True, side_effect=User.check_password) as looked:
        codes = [
            client.post(reverse(page), form | dict.fromkeys(("old_password", "password"), f"wrong {n}")).status_code
            for n in range(60)
        ]
    assert looked.call_count == signin.SESSION_LIMIT
    assert codes[10:] == [429] * 50 and set(codes[:10]) <= {200, 400}
    refused = client.post(reverse(page), form | dict.fromkeys(("old_password", "password"), PASSWORD))
    assert (refused.status_code, refused["Retry-After"]) == (429, "900")
    # Nor at any other page of the session; but the owner, elsewhere, is not kept out.
    for other in PASSWORD_PAGES:
        assert client.post(reverse(other), form | dict.fromkeys(("old_password", "password"), PASSWORD)
                           ).status_code == 429  # fmt: skip
    owner = Client()
    assert owner.post(reverse("account-signin"), {"username": "root", "password": PASSWORD}).status_code == 302
    assert owner.post(reverse("account-password"), form | {"old_password": PASSWORD}).status_code == 302
    assert AuditEntry.objects.filter(action="signin.throttled").exists()
    assert AuditEntry.objects.filter(action="password.change").count() == 1


def test_the_console_s_own_form_changes_the_password(operator: User) -> None:
    client = Client()
    client.force_login(operator)
    assert client.get(reverse("admin:password_change")).status_code == 200
    form = {"old_password": PASSWORD, "new_password1": "a new long one 7", "new_password2": "a new long one 7"}
    assert client.post(reverse("admin:password_change"), form)["Location"] == reverse("admin:password_change_done")
    assert client.get(reverse("admin:index")).status_code == 200
    assert AuditEntry.objects.get(action="password.change").actor == operator


def test_every_form_that_asks_for_a_password_is_throttled() -> None:
    """Whoever looks at a password says here how it is throttled."""
    root = Path(__file__).resolve().parents[2]
    looks = re.compile(
        r"check_password\(|contrib.auth import .*authenticate|AuthenticationForm|PasswordChange(Form|View)\b"
    )
    found = {
        str(path.relative_to(root))
        for app in ("voiceproject", "voices", "covers")
        for path in (root / app).rglob("*.py")
        if looks.search(path.read_text())
    }
    assert found == {
        "voiceproject/console/admin.py",  # AdminPasswordChangeForm sets another's password and looks at none.
        "voiceproject/console/site.py",  # ThrottledSignin, ThrottledOldPassword
        "voiceproject/tenants/signin.py",
        "voices/account/forms.py",  # the same, and take_confirmation in EraseForm
    }


def test_one_ipv6_network_is_one_address(operator: User) -> None:
    for number in range(signin.ADDRESS_LIMIT):
        fail(f"guess-{number}", f"2001:db8::{number:x}:1")
    assert sign_in(PASSWORD, address="2001:db8::ffff").status_code == 429
    assert sign_in(PASSWORD, address="2001:db8:0:1::1").status_code == 302


def test_a_right_password_costs_nothing_and_forgets_the_account_s_failures(operator: User) -> None:
    for _ in range(signin.PAIR_LIMIT - 1):
        fail()
    for _ in range(2):
        assert sign_in(PASSWORD).status_code == 302
        # Of the address and of the account from everywhere; that of both together is forgotten.
        assert list(SigninFailures.objects.values_list("count", flat=True)) == [signin.PAIR_LIMIT - 1] * 2


def at_a_signin() -> bool:
    return signin.take_try(RequestFactory().post("/", REMOTE_ADDR="10.0.0.1"), "root")


def in_a_session() -> bool:
    request = RequestFactory().post("/", REMOTE_ADDR="10.0.0.1")
    request.user, request.session = User(pk=None, username="root"), SessionStore("one-session")
    return signin.take_confirmation(request)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("take", [at_a_signin, in_a_session])
def test_tries_at_the_same_time_share_the_limit(take: Callable[[], bool]) -> None:
    start = threading.Barrier(8)
    taken: list[bool] = []

    def guess() -> None:
        start.wait()
        try:
            taken.extend(take() for _ in range(4))
        finally:
            connection.close()

    threads = [threading.Thread(target=guess) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == signin.PAIR_LIMIT
    assert len(taken) == 32


def test_failures_and_refusals_are_in_the_audit_log_without_the_password(operator: User) -> None:
    for _ in range(signin.PAIR_LIMIT + 5):
        fail(password="hunter2-secret")
    entries = AuditEntry.objects.filter(action__startswith="signin.")
    assert entries.filter(action="signin.failed").count() == signin.PAIR_LIMIT
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

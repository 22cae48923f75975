"""What viewers, operators and admins may do in the console, and what nobody may."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.files.base import ContentFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker

from covers.models import CoverJob
from tests.support.audio import speech_like, wav_bytes
from voiceproject.jobs.models import WorkerHost
from voiceproject.tenants.models import AuditEntry, Tenant
from voiceproject.tenants.roles import ADMIN, OPERATOR, ROLES, VIEWER, make_roles
from voices.keys.models import ApiKey
from voices.speech.models import EngineModel

pytestmark = pytest.mark.django_db


def staff(role: str) -> Client:
    user = User.objects.create_user(f"the-{role}", is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def things() -> dict[str, Any]:
    job = baker.make(CoverJob, status="running", attempt=1, host="gpu-1")
    job.song.save("covers/x/song", ContentFile(wav_bytes(speech_like(1.0), 16_000)), save=False)
    CoverJob.objects.update(song=job.song.name)
    user = User.objects.create_user("dora")
    key, _ = ApiKey.objects.issue(user, "dora's")
    return {
        "job": job,
        "host": WorkerHost.objects.create(name="gpu-1", seen_at=timezone.now()),
        "tenant": Tenant.objects.create(user=user),
        "key": key,
        "model": EngineModel.objects.create(model_id="anna", name="Anna", voice_weights="a.pth", engine="rvc"),
        "user": user,
        "root": User.objects.create_superuser("root", password="root's own password"),
    }


def act(client: Client, model: str, action: str, target: Any) -> int:
    form = {"action": action, "_selected_action": [target.pk], "confirmed": "1"}
    return client.post(reverse(f"admin:{model}_changelist"), form).status_code


PAGES = ("covers_coverjob", "voices_synthesis", "voices_apikey", "voices_enginemodel", "voiceproject_tenant",
         "voiceproject_workerhost", "voiceproject_webhookdelivery", "voiceproject_auditentry", "auth_user")  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_every_role_sees_everything_and_listens(role: str, things: dict[str, Any]) -> None:
    client = staff(role)
    for page in PAGES:
        assert client.get(reverse(f"admin:{page}_changelist")).status_code == 200, page
    for page, name in (("covers_coverjob", "job"), ("voices_apikey", "key"), ("voices_enginemodel", "model"),
                       ("auth_user", "root")):  # fmt: skip
        html = client.get(reverse(f"admin:{page}_change", args=[things[name].pk])).content.decode()
        assert things["root"].password not in html
        assert things["key"].key_hash not in html
    assert client.get(reverse("admin:covers_coverjob_file", args=[things["job"].pk, "song"])).status_code == 200
    assert client.get(reverse("admin:dashboard")).status_code == 200


def test_staff_without_a_role_sees_nothing(things: dict[str, Any]) -> None:
    client = Client()
    client.force_login(User.objects.create_user("new", is_staff=True))
    for page in PAGES:
        assert client.get(reverse(f"admin:{page}_changelist")).status_code == 403, page
    assert client.get(reverse("admin:dashboard")).status_code == 403
    assert client.get(reverse("admin:covers_coverjob_file", args=[things["job"].pk, "song"])).status_code == 403
    assert "gpu-1" not in client.get(reverse("admin:index")).content.decode()


def test_a_tenant_that_is_no_staff_does_not_get_in(things: dict[str, Any]) -> None:
    client = Client()
    client.force_login(things["user"])
    for name in ("index", "dashboard", "covers_coverjob_changelist"):
        assert client.get(reverse(f"admin:{name}")).status_code == 302


def state(things: dict[str, Any]) -> dict[str, Any]:
    """What the roles could have changed, as it is now."""
    for thing in things.values():
        thing.refresh_from_db()
    return {
        "job": things["job"].status,
        "host": things["host"].draining,
        "tenant": things["tenant"].max_running,
        "key": things["key"].revoked_at is not None,
        "model": things["model"].enabled,
        "user": things["user"].is_active,
    }


def try_everything(client: Client, things: dict[str, Any]) -> None:
    act(client, "covers_coverjob", "cancel_jobs", things["job"])
    act(client, "voiceproject_workerhost", "drain", things["host"])
    act(client, "voices_apikey", "revoke", things["key"])
    act(client, "voices_enginemodel", "disable", things["model"])
    client.post(reverse("admin:voiceproject_tenant_change", args=[things["tenant"].pk]), {"max_running": "9"})
    client.post(reverse("admin:auth_user_change", args=[things["user"].pk]), {"username": "dora"})  # not active


UNTOUCHED = {"job": "running", "host": False, "tenant": None, "key": False, "model": True, "user": True}


@pytest.mark.parametrize(
    ("role", "changed"),
    [
        (VIEWER, {}),
        (OPERATOR, {"job": "canceled", "host": True}),
        (ADMIN, {"job": "canceled", "host": True, "tenant": 9, "key": True, "model": False, "user": False}),
    ],
)
def test_each_role_changes_what_it_may_and_nothing_else(
    role: str, changed: dict[str, Any], things: dict[str, Any]
) -> None:
    client = staff(role)
    try_everything(client, things)
    assert state(things) == UNTOUCHED | changed
    # And each change is in the audit log under the name of whoever made it.
    entries = AuditEntry.objects.filter(actor_name=f"the-{role}").exclude(action__startswith="signin")
    assert entries.count() == len(changed), list(entries)


@pytest.mark.parametrize("role", [VIEWER, OPERATOR])
def test_only_admins_make_keys_and_users(role: str, things: dict[str, Any]) -> None:
    client = staff(role)
    for page in ("voices_apikey", "auth_user", "voices_enginemodel", "voiceproject_tenant"):
        assert client.get(reverse(f"admin:{page}_add")).status_code == 403
    assert client.get(reverse("admin:auth_user_password_change", args=[things["user"].pk])).status_code == 403


def test_an_admin_makes_users_and_gives_roles_but_no_superuser(things: dict[str, Any]) -> None:
    client = staff(ADMIN)
    url = reverse("admin:auth_user_change", args=[things["user"].pk])
    operator = Group.objects.get(name=OPERATOR)
    everything = [permission.pk for permission in Permission.objects.filter(codename__contains="user")]
    form = {"username": "dora", "is_active": "on", "groups": [operator.pk], "is_superuser": "on",
            "user_permissions": everything}  # fmt: skip
    assert client.post(url, form).status_code == 302
    things["user"].refresh_from_db()
    assert things["user"].is_staff
    assert list(things["user"].groups.all()) == [operator]
    assert not things["user"].is_superuser
    assert not things["user"].user_permissions.exists()
    entry = AuditEntry.objects.get(action="user.change")
    assert entry.details["groups"][1] == ["operator"]


def test_an_admin_can_neither_change_a_superuser_nor_take_its_password(things: dict[str, Any]) -> None:
    client = staff(ADMIN)
    root, was = things["root"], things["root"].password
    page = reverse("admin:auth_user_change", args=[root.pk])
    assert client.post(page, {"username": "mine", "is_active": "on"}).status_code == 403
    password = reverse("admin:auth_user_password_change", args=[root.pk])
    new = {"password1": "taken-over-1", "password2": "taken-over-1", "usable_password": "true"}
    assert client.post(password, new).status_code == 403
    root.refresh_from_db()
    assert (root.username, root.password) == ("root", was)


def test_a_superuser_makes_a_superuser(things: dict[str, Any]) -> None:
    client = Client()
    client.force_login(things["root"])
    url = reverse("admin:auth_user_change", args=[things["user"].pk])
    client.post(url, {"username": "dora", "is_active": "on", "is_superuser": "on"})
    things["user"].refresh_from_db()
    assert things["user"].is_superuser
    assert things["user"].is_staff


def test_a_role_lets_its_user_sign_in_and_its_end_ends_that(things: dict[str, Any]) -> None:
    user = things["user"]
    user.set_password("dora's own password")
    user.save()
    operator = Group.objects.get(name=OPERATOR)
    page, admin = reverse("admin:auth_user_change", args=[user.pk]), staff(ADMIN)
    admin.post(page, {"username": "dora", "is_active": "on", "groups": [operator.pk]})
    client, signin = Client(), {"username": "dora", "password": "dora's own password"}
    assert client.post("/admin/login/", signin).status_code == 302
    assert client.get(reverse("admin:covers_coverjob_changelist")).status_code == 200
    # What the page sends of its own accord changes nothing: it is the role that counts.
    admin.post(page, {"username": "dora", "is_active": "on", "groups": [operator.pk], "is_staff": ""})
    user.refresh_from_db()
    assert user.is_staff
    admin.post(page, {"username": "dora", "is_active": "on"})
    user.refresh_from_db()
    assert not user.is_staff
    assert client.get(reverse("admin:covers_coverjob_changelist")).status_code == 302


@pytest.mark.parametrize("way", ["set", "clear", "remove", "of the group", "all of the group"])
def test_staff_follows_roles_whatever_gives_and_takes_them(way: str, things: dict[str, Any]) -> None:
    user, root, viewer = things["user"], things["root"], Group.objects.get(name=VIEWER)
    other = Group.objects.create(name="singers")
    user.groups.add(other)
    assert not user.is_staff
    viewer.user_set.add(user, root)
    user.refresh_from_db()
    assert user.is_staff
    match way:
        case "set":
            user.groups.set([other])
        case "clear":
            user.groups.clear()
        case "remove":
            user.groups.remove(viewer)
        case "of the group":
            viewer.user_set.remove(user, root)
        case _:
            viewer.user_set.clear()
    user.refresh_from_db()
    root.refresh_from_db()
    assert (user.is_staff, root.is_staff) == (False, True)


def test_who_was_made_staff_by_hand_stays_it(things: dict[str, Any]) -> None:
    user = User.objects.create_user("by-hand", is_staff=True)
    singers = Group.objects.create(name="singers")
    user.groups.add(singers)
    user.groups.clear()
    user.groups.add(singers)
    user.groups.remove(singers)
    user.refresh_from_db()
    assert user.is_staff


@pytest.mark.parametrize("lookup", ["password__startswith=md5", "user__password__startswith=md5"])
def test_nobody_guesses_a_hash_by_filtering(lookup: str, things: dict[str, Any]) -> None:
    client = staff(VIEWER)
    for page in ("auth_user", "voiceproject_tenant", "voices_apikey"):
        assert client.get(f"{reverse(f'admin:{page}_changelist')}?{lookup}").status_code in (302, 400)


def test_nobody_deletes_what_is_a_record(things: dict[str, Any]) -> None:
    client = Client()
    client.force_login(things["root"])
    for page, name in (("covers_coverjob", "job"), ("voices_apikey", "key"), ("auth_user", "user"),
                       ("voiceproject_tenant", "tenant"), ("voiceproject_workerhost", "host")):  # fmt: skip
        url = reverse(f"admin:{page}_delete", args=[things[name].pk])
        assert client.post(url, {"post": "yes"}).status_code == 403, page
        act(client, page, "delete_selected", things[name])
        things[name].refresh_from_db()


def test_migrate_repairs_the_roles(things: dict[str, Any]) -> None:
    viewer = Group.objects.get(name=VIEWER)
    viewer.permissions.add(Permission.objects.get(codename="change_user"))
    Group.objects.get(name=OPERATOR).delete()
    make_roles()
    assert not viewer.permissions.filter(codename__startswith="change").exists()
    assert Group.objects.get(name=OPERATOR).permissions.filter(codename="change_coverjob").exists()


def test_migrate_lets_those_in_who_had_a_role_and_were_no_staff(things: dict[str, Any]) -> None:
    things["user"].groups.add(Group.objects.get(name=VIEWER))
    User.objects.filter(pk=things["user"].pk).update(is_staff=False)
    make_roles()
    things["user"].refresh_from_db()
    assert things["user"].is_staff

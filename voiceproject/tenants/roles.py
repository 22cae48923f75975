"""Roles of the staff, as groups: what each may do in the console. `migrate` makes them, and brings them up to date.

| role     | may                                                                                      |
|----------|------------------------------------------------------------------------------------------|
| viewer   | see everything in the console and listen to jobs                                         |
| operator | also act on jobs, hosts and webhooks, and take voices down                               |
| admin    | also make, narrow and revoke keys, set limits of tenants, register models, manage users  |

Each has what those above it have. Only superusers make superusers, and change them.

Who has a role is staff (`is_staff`), which is what the console's sign-in asks for. Giving a role makes a user staff,
and taking the last one ends that, unless the user is a superuser. Who was made staff by hand and never had a role stays
it, and sees nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import apps as all_apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import User
from django.db.models.signals import m2m_changed
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
# What the console calls them; the groups keep their names.
LABELS = {VIEWER: _("viewer"), OPERATOR: _("operator"), ADMIN: _("admin")}

# Permissions as `app_label.codename`. Those of models that an installation lacks are passed over.
SEEN = (
    "covers.coverjob", "voices.synthesis", "voices.training", "voices.apikey", "voices.enginemodel", "voices.voice",
    "voices.consent", "voices.lexicon", "voiceproject.tenant", "voiceproject.workerhost",
    "voiceproject.webhookdelivery", "voiceproject.auditentry", "auth.user",
)  # fmt: skip
ACTED_ON = ("covers.coverjob", "voices.synthesis", "voices.training", "voices.voice", "voices.consent",
            "voiceproject.workerhost", "voiceproject.webhookdelivery")  # fmt: skip
MANAGED = {
    "voices.apikey": ("add", "change"),
    "voiceproject.tenant": ("add", "change"),
    "voices.enginemodel": ("add", "change", "delete"),
    "auth.user": ("add", "change"),
}


def _permissions(verbs: dict[str, tuple[str, ...]]) -> set[tuple[str, str]]:
    """(app label, codename) of each."""
    pairs = ((model.split("."), verb) for model, given in verbs.items() for verb in given)
    return {(app, f"{verb}_{name}") for (app, name), verb in pairs}


_viewer = _permissions(dict.fromkeys(SEEN, ("view",)))
_operator = _viewer | _permissions(dict.fromkeys(ACTED_ON, ("change",)))
ROLES: dict[str, set[tuple[str, str]]] = {
    VIEWER: _viewer,
    OPERATOR: _operator,
    ADMIN: _operator | _permissions(MANAGED),
}


def after_migrate(app_config: Any, using: str, **kwargs: Any) -> None:
    """Hears of each app in turn; the last one is the moment when all tables are there."""
    configs = list(all_apps.get_app_configs())
    if app_config is configs[-1]:
        for config in configs:
            create_permissions(config, verbosity=0, using=using)  # Django's own may come after this receiver.
        make_roles(using)


def make_roles(using: str = "default") -> None:
    """Makes the groups where they lack, and gives each exactly its permissions. Runs after each `migrate`.

    Not in a migration: the permissions of models that a later migration makes are there only after it.
    """
    permissions = all_apps.get_model("auth", "Permission").objects.using(using).select_related("content_type")
    known = {(permission.content_type.app_label, permission.codename): permission for permission in permissions}
    for role, wanted in ROLES.items():
        group, _created = all_apps.get_model("auth", "Group").objects.using(using).get_or_create(name=role)
        group.permissions.set([known[key] for key in wanted if key in known])
    # Until version 1.0 a role without `is_staff` could be given.
    all_apps.get_model("auth", "User").objects.using(using).filter(groups__name__in=ROLES, is_staff=False).update(
        is_staff=True
    )


@receiver(m2m_changed, sender=User.groups.through)
def _staff_by_role(instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **kwargs: Any) -> None:
    """Makes staff of whoever is given a role, and ends that with the last role, whatever way it was done."""
    memberships = User.groups.through.objects.filter(group__name__in=ROLES)
    if action == "pre_clear":
        # Afterwards nobody knows who had one.
        own = memberships.filter(group=instance) if reverse else memberships.filter(user=instance)
        instance._had_role = list(own.values_list("user", flat=True))
    elif action == "post_clear":
        _follow_roles(instance.__dict__.pop("_had_role", []))
    elif action in ("post_add", "post_remove") and pk_set:
        groups = [instance.pk] if reverse else pk_set
        if all_apps.get_model("auth", "Group").objects.filter(pk__in=groups, name__in=ROLES).exists():
            _follow_roles(pk_set if reverse else [instance.pk])
    if isinstance(instance, User) and action.startswith("post_"):
        instance.refresh_from_db(fields=["is_staff"])


def _follow_roles(user_ids: Iterable[int]) -> None:
    """Of users who were given a role, or had one taken."""
    users = User.objects.filter(pk__in=user_ids)
    with_role = User.objects.filter(groups__name__in=ROLES).values("pk")
    users.filter(pk__in=with_role, is_staff=False).update(is_staff=True)
    users.filter(is_superuser=False, is_staff=True).exclude(pk__in=with_role).update(is_staff=False)

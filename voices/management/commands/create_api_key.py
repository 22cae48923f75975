"""`manage.py create_api_key USER`: makes a key and prints it, once."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import transaction
from django.utils import timezone

from voiceproject.operations.terminal import OutputGone, ToldCommand
from voices.keys import grants
from voices.keys.models import KEY_LIMITS, MAX_LIMIT, SCOPES, ApiKey, clean_networks

MAX_DAYS = 100 * 365


class Command(ToldCommand):
    help = "Makes an API key of a user and prints it. It is not shown again: only its hash is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("user", help="user name")
        parser.add_argument("--create-user", action="store_true", help="make the user if there is none")
        parser.add_argument("--name", default="made on the command line", help="what the key is for")
        parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=list(SCOPES))
        parser.add_argument("--expires-in-days", type=int)
        parser.add_argument(
            "--allowed-networks", nargs="+", default=[], metavar="NETWORK",
            help="addresses or networks that it may be used from, such as 192.0.2.7 or 2001:db8::/32; by default all",
        )  # fmt: skip
        parser.add_argument("--requests-per-minute", type=int, help="in any 60 seconds")
        parser.add_argument("--max-concurrent-jobs", type=int, help="that may be queued or running at a time")
        parser.add_argument("--monthly-audio-seconds", type=int, help="that it may make in a calendar month (UTC)")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            if not options["create_user"]:
                raise CommandError(f"There is no user {options['user']!r}; add --create-user to make one.")
            user = User(username=options["user"])
            user.set_unusable_password()
            try:
                user.full_clean(exclude=["password"])
            except ValidationError as error:
                raise CommandError(f"{options['user']!r} cannot be a user name. {' '.join(error.messages)}") from None
        days = options["expires_in_days"]
        if days is not None and not 1 <= days <= MAX_DAYS:
            raise CommandError(f"--expires-in-days must be from 1 to {MAX_DAYS}.")
        longest = ApiKey._meta.get_field("name").max_length
        if longest and len(options["name"]) > longest:
            raise CommandError(f"--name may have {longest} characters, not {len(options['name'])}.")
        expires_at = timezone.now() + timedelta(days=days) if days else None
        fields = {name: options[name] for name in ("name", "scopes", "allowed_networks", *KEY_LIMITS)}
        try:
            fields["allowed_networks"] = clean_networks(fields["allowed_networks"])
        except ValueError as error:
            raise CommandError(f"--allowed-networks: {error}") from None
        for name in KEY_LIMITS:
            if fields[name] is not None and not 1 <= fields[name] <= MAX_LIMIT:
                raise CommandError(f"--{name.replace('_', '-')} must be from 1 to {MAX_LIMIT}.")
        try:
            with transaction.atomic():  # A key that nobody has seen is none.
                if user.pk is None:
                    user.save()
                key, secret = grants.create(user, grants.Actor(), **fields, expires_at=expires_at)
                self.stderr.write(f"Key {key.prefix}… of {user.username}. Copy it now, it is not shown again:")
                self.show(secret)
        except OutputGone:
            raise CommandError("The key could not be shown, so none was made.") from None

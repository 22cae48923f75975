from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class VoiceprojectConfig(AppConfig):
    default = True
    name = "voiceproject"
    verbose_name = _("Service")

    def ready(self) -> None:
        # Django has the models only now.
        from voiceproject.jobs import signals
        from voiceproject.operations import (
            alerts,
            checks,  # noqa: F401 - registers the system checks
        )
        from voiceproject.provenance.marks import on_deleting_files
        from voiceproject.registry import registry
        from voiceproject.shares import models as shares
        from voiceproject.telemetry import sentry
        from voiceproject.tenants import signin  # noqa: F401 - hears who signs in
        from voiceproject.tenants.roles import after_migrate
        from voiceproject.webhooks import deliveries

        sentry.start()
        registry.at_start.append(alerts.start)
        post_migrate.connect(after_migrate, dispatch_uid="roles")
        signals.ended.connect(deliveries.on_job_ended, dispatch_uid="webhooks")
        signals.removed.connect(deliveries.on_job_removed, dispatch_uid="webhooks")
        signals.removed.connect(shares.on_job_removed, dispatch_uid="shares")
        signals.deleting_files.connect(on_deleting_files, dispatch_uid="provenance")


class ConsoleConfig(admin_apps.AdminConfig):
    default = False
    default_site = "voiceproject.console.site.ConsoleSite"

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class VoiceprojectConfig(AppConfig):
    default = True
    name = "voiceproject"
    verbose_name = _("Service")

    def ready(self) -> None:
        from voiceproject.operations import checks  # noqa: F401 - hears who signs in
        from voiceproject.telemetry import sentry
        from voiceproject.tenants import signin  # noqa: F401 - hears who signs in
        from voiceproject.tenants.roles import after_migrate

        sentry.start()
        post_migrate.connect(after_migrate, dispatch_uid="roles")


class ConsoleConfig(admin_apps.AdminConfig):
    default = False
    default_site = "voiceproject.console.dashboard.ConsoleSite"

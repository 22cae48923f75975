from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CoversConfig(AppConfig):
    name = "covers"
    verbose_name = _("Covers")

    def ready(self) -> None:
        from covers import registration  # Django has the models only now.

        registration.register()

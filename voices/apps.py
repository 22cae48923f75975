from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class VoicesConfig(AppConfig):
    name = "voices"
    verbose_name = _("Voices")

    def ready(self) -> None:
        from voices import registration  # Django has the models only now.

        registration.register()

from django.apps import AppConfig


class VoiceprojectConfig(AppConfig):
    name = "voiceproject"
    verbose_name = "Service"

    def ready(self) -> None:
        from voiceproject import checks, sentry  # noqa: F401 - registers the system checks

        sentry.start()

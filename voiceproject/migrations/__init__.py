from typing import Any

from django.db import migrations


class TextsOnly(migrations.SeparateDatabaseAndState):
    """Changes of names, explanations and choices, which the database knows nothing of.

    The models of a migration's state are made anew once, at the next look at them, and not after each of a hundred
    fields, which would take seconds of every first start.
    """

    def state_forwards(self, app_label: str, state: Any) -> None:
        state.__dict__.pop("apps", None)  # A cached property.
        super().state_forwards(app_label, state)

from typing import Any

import django.db.models.functions.text
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


def from_creation(apps: Any, schema_editor: Any) -> None:
    """What older ones were used for last is not known."""
    apps.get_model("voices", "Voice").objects.update(used_at=models.F("created_at"))


class Migration(migrations.Migration):
    dependencies = [
        ("voices", "0027_failure_causes"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="voice",
            name="used_at",
            field=models.DateTimeField(
                default=django.utils.timezone.now,
                help_text="When something was last made with it; before that, its creation",
                verbose_name="used at",
            ),
        ),
        migrations.RunPython(from_creation, migrations.RunPython.noop),
    ]

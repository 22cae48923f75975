from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("voiceproject", "0016_measured_calls")]

    operations = [
        migrations.AddField(
            "enginelease", "loaded_at", models.DateTimeField(help_text="When we loaded them", null=True)
        ),
    ]

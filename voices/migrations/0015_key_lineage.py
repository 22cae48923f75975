"""Keys that were replaced share the limits of the first of their line. What a key has made was not kept until now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import migrations, models
from django.db.models import F


def join_lines(apps: Any, schema_editor: Any) -> None:
    keys = apps.get_model("voices", "ApiKey").objects.using(schema_editor.connection.alias)
    entries = apps.get_model("voiceproject", "UsageEntry").objects.using(schema_editor.connection.alias)
    # What was accepted before this month (UTC) counts no more.
    month = entries.filter(day__gte=datetime.now(UTC).date().replace(day=1))
    keys.update(lineage=F("public_id"))
    month.update(lineage=F("key_id"))
    replaced_by = dict(keys.exclude(replaced_by=None).values_list("pk", "replaced_by_id"))
    first = set(replaced_by) - set(replaced_by.values())
    public_ids = dict(keys.values_list("pk", "public_id"))
    for pk in first:
        last = replaced_by.get(pk)
        while last is not None:
            keys.filter(pk=last).update(lineage=public_ids[pk])
            month.filter(key_id=public_ids[last]).update(lineage=public_ids[pk])
            last = replaced_by.get(last)


class Migration(migrations.Migration):
    dependencies = [("voices", "0014_texts_in_two_languages"), ("voiceproject", "0014_usage_lineage")]

    operations = [
        migrations.AddField("apikey", "lineage", models.UUIDField(null=True, editable=False)),
        migrations.RunPython(join_lines, migrations.RunPython.noop),
    ]

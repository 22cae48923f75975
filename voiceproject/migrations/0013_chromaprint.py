"""Landmarks are Chromaprint's now, and none of the old ones can be compared with them: they go, as a whole table. Of
files that are still there the workers make new ones; others are known by their hashes from now on.

An hour later: workers of the release before may still run, and would make what they know of.
"""

from datetime import timedelta

import django.db.models.deletion
from django.db import migrations, models
from django.db.models.functions import Now


def listen_again(apps, schema_editor):
    marks = apps.get_model('voiceproject', 'Mark').objects.using(schema_editor.connection.alias)
    marks.exclude(file='').update(landmarks_due_at=Now() + timedelta(hours=1))


class Migration(migrations.Migration):

    dependencies = [
        ('voiceproject', '0012_texts_in_two_languages'),
    ]

    operations = [
        migrations.DeleteModel(
            name='Landmark',
        ),
        migrations.CreateModel(
            name='Landmark',
            fields=[
                ('pk', models.CompositePrimaryKey('hash', 'mark', 'frame', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hash', models.BigIntegerField()),
                ('frame', models.PositiveIntegerField(help_text='Of 124 ms')),
                ('mark', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to='voiceproject.mark')),
            ],
        ),
        migrations.RunPython(listen_again, migrations.RunPython.noop),
    ]

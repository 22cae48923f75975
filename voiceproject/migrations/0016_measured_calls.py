"""What a call to an engine's server takes is empty until one was measured: 5 s was only the value to begin with."""

from django.db import migrations, models


def forget(apps, schema_editor):
    leases = apps.get_model('voiceproject', 'EngineLease').objects.using(schema_editor.connection.alias)
    leases.filter(usual_seconds=5.0).update(usual_seconds=None)


def assume(apps, schema_editor):
    leases = apps.get_model('voiceproject', 'EngineLease').objects.using(schema_editor.connection.alias)
    leases.filter(usual_seconds=None).update(usual_seconds=5.0)


class Migration(migrations.Migration):

    dependencies = [
        ('voiceproject', '0015_webhook_order'),
    ]

    operations = [
        migrations.AlterField(
            model_name='enginelease',
            name='usual_seconds',
            field=models.FloatField(help_text='How long a call takes there, smoothed; empty: not measured', null=True),
        ),
        migrations.RunPython(forget, assume),
    ]

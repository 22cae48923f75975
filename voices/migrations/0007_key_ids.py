import uuid

import django.db.models.deletion
from django.db import migrations, models


def give_ids(apps, schema_editor):
    ApiKey = apps.get_model("voices", "ApiKey")
    for key in ApiKey.objects.filter(public_id=None).only("pk").iterator():
        ApiKey.objects.filter(pk=key.pk).update(public_id=uuid.uuid4())


class Migration(migrations.Migration):

    dependencies = [
        ('voices', '0006_key_limits'),
    ]

    operations = [
        migrations.AddField(
            model_name='apikey',
            name='public_id',
            field=models.UUIDField(editable=False, help_text='What the API calls it', null=True),
        ),
        migrations.RunPython(give_ids, migrations.RunPython.noop, elidable=True),
        migrations.AlterField(
            model_name='apikey',
            name='public_id',
            field=models.UUIDField(default=uuid.uuid4, editable=False, help_text='What the API calls it', unique=True),
        ),
        migrations.AddField(
            model_name='apikey',
            name='replaced_by',
            field=models.ForeignKey(editable=False, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='voices.apikey'),
        ),
    ]

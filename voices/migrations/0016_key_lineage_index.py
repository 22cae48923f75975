"""Apart from the migration that fills it: PostgreSQL alters no table that its transaction has just written to."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("voices", "0015_key_lineage")]

    operations = [
        migrations.AlterField(
            "apikey",
            "lineage",
            models.UUIDField(
                db_index=True,
                editable=False,
                help_text="Keys with the same one share their limits: those that were replaced, and those that they "
                "made",
            ),
        ),
    ]

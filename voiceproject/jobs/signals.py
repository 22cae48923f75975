"""What other rooms hear of jobs. Receivers connect in `AppConfig.ready`; jobs know none of them.

`ended` and `removed` are sent within the transaction that ends or removes the job: what a receiver writes and what it
raises belong to that transaction.
"""

from __future__ import annotations

from django.dispatch import Signal

ended = Signal()  # job: has just succeeded, failed or been canceled
removed = Signal()  # job: its row is gone for good
deleting_files = Signal()  # folder: a folder of the storage whose files are about to be deleted

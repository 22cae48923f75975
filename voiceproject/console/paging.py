"""Lists of any length: the total exactly to 10,000 and about beyond, pages up to there, and an order by an index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.core.paginator import Paginator
from django.db import connections
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext
from unfold.views import ChangeList

EXACT = 10_000  # rows; counting them reads that much of an index, and so does the last page


class BoundedPaginator(Paginator):
    """Counts and pages to EXACT rows. What lies beyond is reached by a filter, a search or the other order."""

    template_name = "voiceproject/console/pagination.html"

    @cached_property
    def _found(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[: EXACT + 1].count())

    @cached_property
    def count(self) -> int:
        return min(self._found, EXACT)

    @property
    def more(self) -> bool:
        return self._found > EXACT

    @cached_property
    def about(self) -> int | None:
        """How many rows there are by the database's own estimate; None where it has none, or they are counted."""
        return _estimate(self.object_list) if self.more else None

    @property
    def about_text(self) -> str:
        if not self.more:
            return number_format(self.count, use_l10n=True, force_grouping=True)
        if self.about is None or self.about <= EXACT:
            return gettext("more than %s") % number_format(EXACT, use_l10n=True, force_grouping=True)
        digits = max(0, len(str(self.about)) - 2)  # two that are worth something
        rounded = round(self.about, -digits)
        return gettext("about %s") % number_format(rounded, use_l10n=True, force_grouping=True)


def _estimate(rows: Any) -> int | None:
    connection = connections[rows.db]
    if connection.vendor == "postgresql":
        sql, params = rows.order_by().values("pk").query.sql_with_params()
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params)
            plan = cursor.fetchone()[0]
        plan = json.loads(plan) if isinstance(plan, str) else plan
        return int(plan[0]["Plan"]["Plan Rows"])
    if not rows.query.where:
        # Rows are numbered as they come; the number of the last one takes no counting.
        table = connection.ops.quote_name(rows.model._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT MAX(rowid) FROM {table}")
            return int(cursor.fetchone()[0] or 0)
    return None


class IndexedChangeList(ChangeList):
    """Orders ties by the key in the same direction, as the indexes do: so they can be read from either end."""

    def get_results(self, request: Any) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count  # unfold's heading would tell a number that ends at EXACT

    def _get_deterministic_ordering(self, ordering: Sequence[Any]) -> list[Any]:
        found = list(super()._get_deterministic_ordering(ordering))  # type: ignore[misc]
        if len(found) == 2 and found[1] in ("pk", "-pk") and isinstance(found[0], str):
            found[1] = "-pk" if found[0].startswith("-") else "pk"
        return found

"""UPDATEs that are compiled once.

Django builds the SQL of a query anew each time, which takes several times as long as the database needs to run it. That
is lost in a query of the console, but every sentence takes a lease, gives it back and ends a job.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, transaction
from django.db.models import Expression, Model, QuerySet
from django.db.models.sql import UpdateQuery


class Slot(Expression):
    """Stands in a prepared statement for a value that each run brings, as its argument of this name.

    The value is written as the model's field of that name is, or as `field`.
    """

    def __init__(self, name: str, model: type[Model], field: str = "") -> None:
        super().__init__(output_field=model._meta.get_field(field or name))
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        return "%s", [self]


class Update:
    """`rows.update(**changes)` with slots: called with their values, it gives the number of rows that were changed."""

    def __init__(self, rows: QuerySet, **changes: Any) -> None:
        self._rows = rows
        self._changes = changes

    def __call__(self, **values: Any) -> int:
        sql, parameters = self._statement
        given = [
            part.output_field.get_db_prep_save(values[part.name], connection) if isinstance(part, Slot) else part
            for part in parameters
        ]
        with transaction.mark_for_rollback_on_error(DEFAULT_DB_ALIAS), connection.cursor() as cursor:
            cursor.execute(sql, given)
            return int(cursor.rowcount)

    @cached_property
    def _statement(self) -> tuple[str, tuple[Any, ...]]:
        # As QuerySet.update does it.
        query = self._rows.query.chain(UpdateQuery)
        query.add_update_values(self._changes)
        query.clear_ordering(force=True)
        query.clear_select_clause()
        sql, parameters = query.get_compiler(DEFAULT_DB_ALIAS).as_sql()
        return sql, tuple(parameters)

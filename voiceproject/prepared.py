"""Statements that are compiled once.

Django builds the SQL of a query anew each time, which takes several times as long as the database needs to run it. That
does not matter in the console, but every sentence takes a lease, gives it back and ends a job, and whoever waits for
one looks again and again.

These save 5 of the 14 to 15 ms that the API uses for a sentence (bench/api_overhead.py): Select 2.4, Update 2.1 and
Insert 0.7. They are made of Django's private parts, so take them only where every sentence or every look passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, Model, QuerySet
from django.db.models.functions import Now
from django.db.models.query import get_related_populators
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import InsertQuery, UpdateQuery

# Fields that write a value of this type as it is. Whole numbers get types of their own in PostgreSQL.
_PLAIN: dict[type[models.Field], type] = {
    models.BooleanField: bool,
    models.CharField: str,
    models.FloatField: float,
    models.TextField: str,
}
if connections[DEFAULT_DB_ALIAS].vendor == "sqlite":
    _PLAIN |= {models.IntegerField: int, models.PositiveIntegerField: int, models.BigIntegerField: int}
    _PLAIN |= {models.PositiveSmallIntegerField: int, models.PositiveBigIntegerField: int}


class Slot(Expression):
    """Stands in a prepared statement for a value that each run brings, as its argument of this name.

    The value is written as the model's field of that name is, or as `field`.
    """

    def __init__(self, name: str, model: type[Model], field: str = "") -> None:
        written: Any = model._meta.get_field(field or name)
        super().__init__(output_field=written)
        self.name = name
        self.plain = _PLAIN.get(type(written))

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", [self]


class _Statement:
    def _given(self, parameters: Iterable[Any], values: dict[str, Any], database: BaseDatabaseWrapper) -> list[Any]:
        given = []
        for part in parameters:
            if type(part) is Slot:
                value = values[part.name]
                plain = value is None or type(value) is part.plain
                given.append(value if plain else part.output_field.get_db_prep_save(value, database))
            else:
                given.append(part)
        return given


def _database() -> BaseDatabaseWrapper:
    # `django.db.connection` looks this thread's up anew at each touch, of which a row of forty fields makes a hundred.
    return connections[DEFAULT_DB_ALIAS]


class Update(_Statement):
    """`rows.update(**changes)` with slots: called with their values, it gives the number of rows that were changed."""

    def __init__(self, rows: QuerySet, **changes: Any) -> None:
        self._rows = rows
        self._changes = changes

    def __call__(self, **values: Any) -> int:
        sql, parameters = self._compiled
        database = _database()
        with transaction.mark_for_rollback_on_error(DEFAULT_DB_ALIAS), database.cursor() as cursor:
            cursor.execute(sql, self._given(parameters, values, database))
            return int(cursor.rowcount)

    @cached_property
    def _compiled(self) -> tuple[str, Iterable[Any]]:
        # As QuerySet.update does it.
        query = self._rows.query.chain(UpdateQuery)
        query.add_update_values(self._changes)  # type: ignore[attr-defined]
        query.clear_ordering(force=True)
        query.clear_select_clause()
        return query.get_compiler(DEFAULT_DB_ALIAS).as_sql()


class Insert(_Statement):
    """Writes an object as a new row, as `save(force_insert=True)` does. A key that the database draws is not read back.

    Fields may hold expressions, such as Now().
    """

    def __init__(self, model: type[Model]) -> None:
        self._model = model
        self._statements: dict[tuple[tuple[str, Any], ...], tuple[str, Iterable[Any]]] = {}

    def __call__(self, row: Any) -> None:
        pre_save.send(self._model, instance=row, raw=False, using=DEFAULT_DB_ALIAS, update_fields=None)
        values = {field.name: field.pre_save(row, True) for field in self._fields}
        expressions = {name: value for name, value in values.items() if hasattr(value, "resolve_expression")}
        # To compare expressions costs as much as to run them, and one Now() is like another.
        key = tuple((name, Now if type(value) is Now else value) for name, value in expressions.items())
        statement = self._statements.get(key)
        if statement is None:
            statement = self._statements[key] = self._compile(expressions)
        sql, parameters = statement
        database = _database()
        with transaction.mark_for_rollback_on_error(DEFAULT_DB_ALIAS), database.cursor() as cursor:
            cursor.execute(sql, self._given(parameters, values, database))
        row._state.adding, row._state.db = False, DEFAULT_DB_ALIAS
        post_save.send(self._model, instance=row, created=True, update_fields=None, raw=False, using=DEFAULT_DB_ALIAS)

    @cached_property
    def _fields(self) -> list[Any]:
        meta = self._model._meta
        return [field for field in meta.local_concrete_fields if not field.generated and field is not meta.auto_field]

    def _compile(self, expressions: dict[str, Any]) -> tuple[str, Iterable[Any]]:
        """The statement in which all but these are slots."""
        standing = {
            field.attname: expressions.get(field.name) or Slot(field.name, self._model) for field in self._fields
        }
        query = InsertQuery(self._model)
        query.insert_values(self._fields, [SimpleNamespace(**standing)], raw=True)  # type: ignore[list-item]
        (statement,) = query.get_compiler(DEFAULT_DB_ALIAS).as_sql()
        return statement


class Select(_Statement):
    """A queryset of objects (with `select_related` of its) or of `values_list`, with slots: called with their values,
    it gives the list."""

    def __init__(self, rows: QuerySet) -> None:
        self._rows = rows

    def __call__(self, **values: Any) -> list[Any]:
        sql, parameters, convert = self._compiled
        database = _database()
        with database.cursor() as cursor:
            cursor.execute(sql, self._given(parameters, values, database))
            return [convert(row) for row in cursor.fetchall()]

    @cached_property
    def _compiled(self) -> tuple[str, Iterable[Any], Callable[[Any], Any]]:
        # As Django's own iterables do it. The converters ask the connection for what its kind can do, not for data.
        compiler = self._rows.query.get_compiler(DEFAULT_DB_ALIAS)
        sql, parameters = compiler.as_sql()
        columns = [column for column, _, _ in compiler.select]
        converters = compiler.get_converters(columns)

        def values_of(row: Any) -> Any:
            return next(compiler.apply_converters([row], converters))

        if self._rows._fields is not None:  # type: ignore[attr-defined] # values_list
            return sql, parameters, lambda row: tuple(values_of(row))
        model = compiler.klass_info["model"]
        own = compiler.klass_info["select_fields"]
        names = [columns[index].target.attname for index in own]
        related = get_related_populators(compiler.klass_info, compiler.select, DEFAULT_DB_ALIAS)  # type: ignore[call-arg]

        def object_of(row: Any) -> Any:
            values = values_of(row)
            found = model.from_db(DEFAULT_DB_ALIAS, names, [values[index] for index in own])
            for populator in related:
                populator.populate(values, found)
            return found

        return sql, parameters, object_of

"""Filters of texts as an operator may write them, named by TEXT_FILTER in tests."""

from __future__ import annotations

from typing import Any

calls: list[tuple[str, int, str]] = []


def no_rivers(text: str, tenant_id: int, operation: str) -> str | None:
    calls.append((text, tenant_id, operation))
    return "We do not speak of rivers." if "river" in text else None


def broken(text: str, tenant_id: int, operation: str) -> str | None:
    raise ValueError(f"cannot judge {text!r}")


def talkative(text: str, tenant_id: int, operation: str) -> Any:
    return True


def silent(text: str, tenant_id: int, operation: str) -> str | None:
    return " "


nothing = "not a filter"

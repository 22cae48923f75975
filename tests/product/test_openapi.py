"""The OpenAPI document against a live server: requests made from it, at random, and answers held against it.

`OPENAPI_EXAMPLES=200 pytest tests/test_openapi.py -n 0` looks longer than a test run can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fakes.engine import FakeEngine
from tests.support.openapi import CHECKS, EXAMPLES, WITH_A_SCHEMA, schemathesis
from tests.support.owned import cover, delivery, key, synthesis, voice
from tests.support.tenants import Tenant
from voices.keys.models import SCOPES


def document() -> dict[str, Any]:
    from voiceproject.web.schema import DocumentGenerator

    return DocumentGenerator().get_schema(request=None, public=True)


OPERATIONS = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (result.ok() for result in schemathesis.openapi.from_dict(document()).get_all_operations())
}
OWNED: dict[str, Callable[..., dict[str, Any]]] = {
    "/voice/syntheses/": synthesis,
    "/cover/jobs/": cover,
    "/keys/": key,
    "/voice/voices/": voice,
    "/webhooks/deliveries/": delivery,
}


@pytest.mark.parametrize("name", sorted(OPERATIONS))  # the document is in no certain order
def test_every_answer_is_as_the_document_has_it(
    name: str, engine: FakeEngine, live_server: Any, transactional_db: None
) -> None:
    operation = OPERATIONS[name]
    tenant = Tenant("alice", scopes=list(SCOPES))
    make = next((made for part, made in OWNED.items() if part in operation.path), None)
    turn = iter(range(10**6))

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def look(case: Any) -> None:
        if make and case.path_parameters and next(turn) % 4:
            values = make(tenant.user)
            for parameter in case.path_parameters:
                known = values.get(parameter, values["pk"] if parameter in ("id", "pk") else None)
                if known is not None:
                    case.path_parameters[parameter] = str(known)
        response = case.call(base_url=live_server.url, headers={"X-API-Key": tenant.secret}, timeout=60)
        assert response.status_code < 500 or response.status_code == 503, response.text
        stream = response.headers.get("content-type", [""])[0].startswith("text/event-stream")
        case.validate_response(response, checks=CHECKS if stream else [*CHECKS, WITH_A_SCHEMA])

    look()

"""schemathesis, and what of it answers are held against."""

from __future__ import annotations

import os
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import checks

__all__ = ["CHECKS", "EXAMPLES", "WITH_A_SCHEMA", "schemathesis"]

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "8"))
checks.load_all_checks()
# Of an event stream schemathesis holds each event against the schema, and OpenAPI 3.1 has one for the whole only.
WITH_A_SCHEMA = checks.CHECKS.get_one("response_schema_conformance")
CHECKS = [
    checks.CHECKS.get_one(name)
    for name in (
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
    )
]

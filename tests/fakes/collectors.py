"""A stand-in for what observes from outside, at the HTTP boundary: takes OTLP traces and Sentry envelopes."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collectors:
    """`spans`: name, trace, id, parent, attributes and whether it failed; `events`: Sentry's, and `raw` what came."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.raw = b""
        collectors = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    collectors.take_spans(body)
                else:
                    collectors.take_envelope(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take_spans(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        {
                            "name": span.name,
                            "trace": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "attributes": {pair.key: pair.value.string_value for pair in span.attributes},
                            "failed": span.status.code == 2,
                            "service": {p.key: p.value.string_value for p in resource.resource.attributes}[
                                "service.name"
                            ],
                        }
                    )

    def take_envelope(self, body: bytes) -> None:
        self.raw += body
        self.events += [
            line for line in map(json.loads, body.splitlines()[1:]) if "exception" in line or "logentry" in line
        ]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

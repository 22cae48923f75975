"""gzip for texts: JSON, and the pages that are open to everybody."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponse, HttpResponseBase
from django.middleware.gzip import GZipMiddleware


class TextCompressionMiddleware(GZipMiddleware):
    """Compresses what is text and known as a whole: no audio, which gains nothing, and no stream, which may not wait.

    How well a page compresses tells of what is in it (BREACH): a stranger's site that makes a signed-in browser ask
    for a page, with guesses in the query, learns a secret by the answers' lengths. So pages behind a cookie are left
    as they are. The API's answers are safe from this: its key is in a header, which no other site can have sent.
    """

    TEXTS = frozenset({"application/json", "application/javascript", "text/html", "text/plain"})
    BEHIND_A_COOKIE = ("/account", "/admin")
    MIN_BYTES = 1400  # What fits into one packet gets there no faster.

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        media_type = response.get("Content-Type", "").partition(";")[0]
        if (
            media_type not in self.TEXTS
            or request.path_info.startswith(self.BEHIND_A_COOKIE)
            or not isinstance(response, HttpResponse)
            or len(response.content) < self.MIN_BYTES
        ):
            return response
        return super().process_response(request, response)

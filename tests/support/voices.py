"""What saved voices are sent to the API with."""

URL = "/api/v1/voice/voices"
STATEMENT = "Jane Doe agreed on 3 May to have her voice cloned for our podcast."

"""Other services' APIs, for the clients that people already have: `openai`, `elevenlabs`. `common` serves both."""

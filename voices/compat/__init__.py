"""Other services' APIs, for the clients that people already have: OpenAI, ElevenLabs."""

"""Other services' APIs for the clients that people have: `openai`, `elevenlabs`, `gptsovits`. `common` serves all."""

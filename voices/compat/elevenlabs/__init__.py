"""ElevenLabs' API under /elevenlabs, for its official clients: base_url and key are all that changes.

Taken over: text to speech (whole, streamed, with timestamps), voices, models, history, user. Speech to speech is in
covers.speech_to_speech. `base` has what all its views share.
"""

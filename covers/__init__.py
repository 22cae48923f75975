"""AI covers: a song sung again in the voice of a reference.

`views` writes a job (`models`) and its files, `tasks` claims it, `pipeline` runs its stages. The stages that separate
and convert are commands of the operator's choice (`commands`); `listening` finds what is sung, and how high.
`speech_to_speech` speaks ElevenLabs' API. `registration` tells the frame of all this.
"""

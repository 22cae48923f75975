"""Separating a song on the CPU: `spectra` (frames, what repeats, the singer's partials), `filters` (the two-channel
Wiener filter) and `place` (where the lead stands between the channels). numpy and scipy only.
"""

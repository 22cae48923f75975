"""Kept for operators whose environment names it: `TEXT_FILTER=voiceproject.textfilter.words`."""

from voiceproject.tenants.textfilter import words  # noqa: F401

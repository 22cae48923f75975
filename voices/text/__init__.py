"""How text is read before an engine speaks it: sentences, languages, scripts."""

"""Marks on what is made here: C2PA manifests, hashes, acoustic fingerprints, and the verification of a file."""

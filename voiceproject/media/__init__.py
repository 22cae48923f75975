"""What audio is and where files are: reading uploads, encoding, mixing, the storage."""

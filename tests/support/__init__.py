"""Plain functions and classes that tests share, by subject. Fixtures are in tests/fixtures."""

"""What the benches of engines share: base voices, texts, judges, and the tables of each kind of engine."""

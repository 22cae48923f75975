"""Programs that tests start as commands, servers and their configuration: nothing here is imported."""

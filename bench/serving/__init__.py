"""What bench.connections needs: servers to measure, and clients by the thousand."""

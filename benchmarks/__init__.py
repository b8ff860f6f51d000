"""Other people's ways of doing the same, written from their descriptions, for benchmarks/compare_peers.py."""

"""RecordIO: packing, verifying and inspecting `.rec` files."""

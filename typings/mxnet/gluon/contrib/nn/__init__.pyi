# MXNet has no types, and those inferred from its code are wrong: everything in it is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...

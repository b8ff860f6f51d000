"""How the others' side of a speed benchmark answers requests; needs nothing but Python. See timing.OtherProcess."""
import json
import sys
import time


def serve(about, way):
    """Says `about`; then answers each line '<setting> <number>' with the seconds of so many calls of `way(setting)`."""
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        setting, number = line.rsplit(" ", 1)
        step = way(setting)
        begun = time.perf_counter()
        for _ in range(int(number)):
            step()
        print(json.dumps(time.perf_counter() - begun), flush=True)

"""scaling: the model of what adding up gradients costs, by hand."""
from __future__ import annotations

import pytest

from benchmarks.speed import scaling


def test_seconds_on_paper():
    ring, servers, slow = scaling.on_paper(25.6e6, memory=10e9, network=2e9).values()
    assert ring == pytest.approx(2 * 7 / 8 * 102.4e6 / 10e9)
    assert (servers, slow) == pytest.approx((102.4e6 / 2e9, 102.4e6 / 1.25e9))


def test_what_is_measured_of_the_machine_is_a_bandwidth(monkeypatch):
    monkeypatch.setattr(scaling, "BYTES", 1 << 22)
    for measured in (scaling.copied, scaling.sent):
        assert 1e6 < measured() < 1e12

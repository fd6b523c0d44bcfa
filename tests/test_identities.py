"""Every run keeps its identity, and with it its records, whatever becomes of the files that configure it.

Composing them all takes minutes, so one in eight is looked at; DFA_TEST_ALL_IDENTITIES=1 looks at all.
"""

import os
from zlib import crc32

from tests.helpers.identities import cases, expected

_SHARE = 1 if os.environ.get("DFA_TEST_ALL_IDENTITIES") else 8


def test_every_run_keeps_its_identity() -> None:
    listed = expected()
    looked_at = [case for case in cases() if crc32(case.name.encode()) % _SHARE == 0]
    assert looked_at
    changed = [case.name for case in looked_at if case.identities() != listed.get(case.name)]
    assert not changed


def test_every_run_is_listed() -> None:
    assert {case.name for case in cases()} == set(expected())

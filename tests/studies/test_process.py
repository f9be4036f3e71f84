"""Work alone in its process: its peak is its own."""

import os

from dphyper.studies.process import peak_mib, run_alone


def test_each_piece_of_work_has_a_process_of_its_own() -> None:
    assert len({os.getpid(), run_alone(os.getpid), run_alone(os.getpid)}) == 3
    assert run_alone(divmod, 7, 2) == (3, 1)


def test_memory_of_this_process_does_not_show_in_another() -> None:
    block = bytearray(os.urandom(1 << 20)) * 256
    assert peak_mib() > run_alone(peak_mib) + 100
    assert len(block) == 256 << 20

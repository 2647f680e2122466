import threading

import pytest
import torch

from merge_core.kernels.threads import share, spans
from merge_core.testing import threads


def test_results_come_in_the_order_of_the_parts():
    with threads(3):
        assert share(lambda x: x * x, range(100)) == [x * x for x in range(100)]
        assert share(lambda x: x, []) == []


def test_as_many_threads_as_torch_may_use_share_the_work_with_one_of_torch_each():
    meeting = threading.Barrier(3, timeout=60)

    def work(_):
        meeting.wait()  # passes only if three are here at once
        return threading.get_ident(), torch.get_num_threads()

    with threads(3):
        found = share(work, range(6))
        assert torch.get_num_threads() == 3
    assert len({thread for thread, _ in found}) == 3
    assert {count for _, count in found} == {1}


def test_one_thread_works_where_it_is():
    with threads(1):
        assert set(share(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}


def test_error_of_a_part_is_raised_and_the_number_of_threads_is_as_before():
    with threads(2):
        with pytest.raises(ZeroDivisionError):
            share(lambda x: 1 // x, [1, 1, 0, 1])
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("count", "most"), [(0, 256), (256, 256), (257, 256), (5000, 256), (7, 1)])
def test_no_span_is_a_rest(count, most):
    ends = spans(count, most)
    sizes = [stop - start for start, stop in ends]
    assert [stop for _, stop in ends[:-1]] == [start for start, _ in ends[1:]]
    assert sum(sizes) == count
    assert max(sizes, default=0) <= most
    assert max(sizes, default=0) - min(sizes, default=0) <= 1

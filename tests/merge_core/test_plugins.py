import pytest

from merge_core.errors import UnknownNameError
from merge_core.plugins import Registry


@pytest.fixture
def registry():
    return Registry("merge method", "mergetune.nobody", {"slerp": "math:pi", "ties": "math:tau"})


def test_plugin_is_imported_by_its_place(registry):
    assert registry.get("slerp") == pytest.approx(3.14159, abs=1e-4)


def test_unknown_name_is_answered_with_the_nearest_and_all_known(registry):
    with pytest.raises(
        UnknownNameError,
        match=r"no merge method is named 'slrp' \(did you mean 'slerp'\?\); known: slerp, ties",
    ):
        registry.get("slrp")


def test_second_plugin_of_a_name_is_refused(registry):
    registry.add("mine", object())
    with pytest.raises(ValueError, match="two merge methods are named 'mine'"):
        registry.add("mine", object())
    with pytest.raises(ValueError, match="two merge methods are named 'slerp'"):
        registry.add("slerp", object())


def test_added_plugin_is_returned_as_it_is_and_listed(registry):
    plugin = object()
    registry.add("mine", plugin)
    assert registry.get("mine") is plugin
    assert registry.names() == ("mine", "slerp", "ties")

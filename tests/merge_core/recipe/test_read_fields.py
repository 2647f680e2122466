from merge_core.recipe.read_fields import leaves
from merge_core.recipe.schema import Conditional


def test_leaves_name_every_plain_value():
    setting = (Conditional("mlp", (0, 1)), Conditional(None, 2))
    assert list(leaves(setting, "w")) == [
        ("w[0].value[0]", 0),
        ("w[0].value[1]", 1),
        ("w[1].value", 2),
    ]

import json

import pytest

from tests.search.real import QUICKSTART, write_study

TEXT = f"""
merge_method: {{method}}
base_model: {QUICKSTART / "models" / "base"}
models:
  - {{{{model: {QUICKSTART / "models" / "add"}, parameters: {{{{weight: 0.6{{more}}}}}}}}}}
dtype: float32
"""


def recipe(folder, method="dare_linear", more=", density: 0.4"):
    file = folder / "recipe.yaml"
    file.write_text(TEXT.format(method=method, more=more))
    return file


@pytest.mark.slow
def test_spread_of_weights_and_scores_is_printed(mergetune, tmp_path):
    given = ("merge", recipe(tmp_path), "--seeds", 3, "--score", write_study(tmp_path / "small"))
    code, out, _ = mergetune(*given)
    assert code == 0
    for words in ("weights of seeds 0 to 2", "down_proj", "scores of 3 seeds on select items"):
        assert words in out
    found = json.loads(mergetune(*given, "--json")[1])
    assert len({*found["weights_digests"]}) == len(found["seeds"]) == 3
    assert len(found["scores"]["values"]) == 3
    assert f"{found['scores']['deviation']:.4f}" in out
    assert f"{100 * found['spread']:.3g} % of its length" in " ".join(out.split())
    assert {*tmp_path.iterdir()} == {tmp_path / "recipe.yaml", tmp_path / "small"}


def test_a_recipe_that_draws_nothing_is_told_so(mergetune, tmp_path):
    code, out, err = mergetune("merge", recipe(tmp_path, "task_arithmetic", ""), "--seeds", 2)
    assert (code, err) == (0, "")
    assert out == "Seeds 0 to 1 give the same weights: no mask decides anything here.\n"


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ((), "expected OUT, or --seeds N"),
        (("--score", "study.yaml"), "add --seeds N"),
        (("out", "--seeds", 3), "leave out OUT"),
        (("--seeds", 1), "Invalid value for '--seeds'"),
    ],
)
def test_options_that_do_not_go_together_are_bad_usage(mergetune, tmp_path, more, rule):
    code, _, err = mergetune("merge", recipe(tmp_path), *more)
    assert code == 2
    assert rule in " ".join(err.replace("│", " ").split())

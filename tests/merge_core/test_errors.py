import pytest

from merge_core import errors
from merge_core.errors import DocumentError, MergeError, Problem, hint, join

EXPECTED = {
    "ParameterError": ValueError,
    "ShapeError": ValueError,
    "CheckpointError": ValueError,
    "MethodError": TypeError,
    "CandidateError": MergeError,
    "ItemError": RuntimeError,
    "NonFiniteError": ArithmeticError,
    "UnknownNameError": LookupError,
    "EvaluationError": RuntimeError,
    "NoTargetsError": NotImplementedError,
    "NoPromptsError": NotImplementedError,
    "NoAnswersError": NotImplementedError,
    "TemplateError": ValueError,
    "OutputExistsError": FileExistsError,
    "OutputError": OSError,
    "StorageError": RuntimeError,
    "DocumentError": ValueError,
}


def test_every_error_is_listed_here():
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MergeError)
    ]
    assert {c.__name__ for c in classes} == {"MergeError", *EXPECTED}


@pytest.mark.parametrize(("name", "builtin"), EXPECTED.items())
def test_error_is_ours_and_the_builtin_one_would_expect(name, builtin):
    assert issubclass(getattr(errors, name), MergeError)
    assert issubclass(getattr(errors, name), builtin)


def test_document_error_lists_all_problems_by_line():
    error = DocumentError("r.yaml", [Problem("b", "late", 7), Problem("a.c[1]", "early", 2)])
    assert str(error) == "r.yaml:2: a.c[1]: early\nr.yaml:7: b: late"
    assert [problem.line for problem in error.problems] == [2, 7]


def test_problems_of_one_line_keep_the_order_they_were_found_in():
    error = DocumentError("r.yaml", [Problem("z", "first", 3), Problem("a", "second", 3)])
    assert str(error) == "r.yaml:3: z: first\nr.yaml:3: a: second"


def test_hint_names_the_nearest_known_name_or_nothing():
    assert hint("slrp", ["linear", "slerp"]) == ", did you mean 'slerp'?"
    assert hint("qqq", ["linear", "slerp"]) == ""
    assert hint("slrp", [1.5, "slerp", None]) == ", did you mean 'slerp'?"


def test_join_makes_key_paths():
    assert join("", "a") == "a"
    assert join("a", "b") == "a.b"
    assert join("a.b", 1) == "a.b[1]"


def test_lines_with_long_names_of_others_are_cut_and_keep_both_ends():
    error = MergeError("model '" + "x" * 10**6 + "': no such folder; give another")
    assert len(str(error)) <= errors.LONGEST
    assert str(error).startswith("model 'xxx")
    assert str(error).endswith("xx': no such folder; give another")
    two = DocumentError("r.yaml", [Problem("a", "y" * 10**5, i) for i in (1, 2)])
    assert [len(line) <= errors.LONGEST for line in str(two).split("\n")] == [True, True]


def test_near_name_is_found_in_small_letters_too():
    assert hint("TIES", ["ties", "slerp"]) == ", did you mean 'ties'?"


def test_of_many_notices_the_first_hundred_are_listed_in_the_files_order():
    found = tuple(Problem("a", "in vain", line) for line in range(150, 0, -1))
    lines = errors.Notices("f.yaml", found).lines()
    assert (lines[0], lines[-1]) == ("f.yaml:1: a: in vain", "f.yaml: and 50 more")
    assert len(lines) == 101


def test_line_breaks_in_names_of_others_make_no_second_line():
    assert (
        str(errors.CheckpointError("a\nb: the shard is missing")) == "a\\nb: the shard is missing"
    )

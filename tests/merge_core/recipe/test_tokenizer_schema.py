from merge_core.recipe.tokenizer_schema import TokenizerSetting, with_references
from tests.merge_core.recipe.test_read_tokenizer import READ


def test_references_stand_once_and_without_the_words_for_union_and_base():
    assert READ.references() == ("one", "chat")
    assert TokenizerSetting("base").references() == ()
    assert TokenizerSetting("one", READ.tokens).references() == ("one", "chat")


def test_references_are_replaced_wherever_they_stand():
    renamed = with_references(TokenizerSetting("one", READ.tokens, 8), {"one": "1", "chat": "2"})
    assert renamed.references() == ("1", "2")
    assert with_references(renamed, {"1": "one", "2": "chat"}).tokens == READ.tokens
    assert with_references(TokenizerSetting("base"), {"base": "moved"}) == TokenizerSetting("base")

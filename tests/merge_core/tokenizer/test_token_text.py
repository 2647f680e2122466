import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from merge_core.tokenizer import token_text
from merge_core.tokenizer.token_text import TokenTexts
from tests.merge_core.tokenizer.tiny import TEXTS, bpe, marked, pieces, words


def test_letters_of_bytes_are_those_of_gpt2():
    assert bytes_to_unicode() == token_text._LETTERS


@pytest.mark.parametrize(
    ("make", "kind", "texts"),
    [
        (lambda: bpe(TEXTS["a"], ["<|x|>"]), "bytes", {"Ġthe": b" the", "<|x|>": b"<|x|>"}),
        (marked, "spaces", {"▁the": b" the", "<0xC3>": b"\xc3", "é": "é".encode(), "<s>": b"<s>"}),
        (pieces, "pieces", {"the": b" the", "##ing": b"ing", "[CLS]": b"[CLS]", "##": b" ##"}),
        (lambda: words("the", "<unk>"), "plain", {"the": b"the"}),
    ],
)
def test_a_token_stands_for_a_text_whatever_the_kind_of_tokenizer(make, kind, texts):
    found = TokenTexts(make())
    assert found.kind == kind
    assert {token: found.of(token) for token in texts} == texts


def test_texts_of_tokens_are_what_the_tokenizer_decodes():
    tokenizer = bpe(["naïve café", "日本の本"])
    found = TokenTexts(tokenizer)
    for token, i in tokenizer.get_vocab().items():
        if token not in found.added:
            assert found.of(token).decode(errors="replace") == tokenizer.decode([i])


@pytest.mark.parametrize("make", [lambda: bpe(TEXTS["a"]), marked])
def test_parts_of_words_are_cut_as_they_stand_inside_a_text(make):
    tokenizer = make()
    found = TokenTexts(tokenizer)
    for text in (" the", "the", " that", "hat", " "):
        cut = found.cut(text.encode())
        assert b"".join(map(found.of, cut)) == text.encode()
    assert len(found.cut(b" the")) == 1  # no space of its own ahead of it


def test_part_of_a_letter_is_cut_only_where_bytes_are_letters():
    assert TokenTexts(marked()).cut(b"\xc3") == []
    assert TokenTexts(bpe(["é"])).cut(b"\xc3") == ["Ã"]


def test_capitals_are_made_small_where_the_tokenizer_does_it():
    assert TokenTexts(pieces()).cut(b" The") == ["the"]

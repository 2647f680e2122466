"""One token is one character, and nothing is added in front, so lm-eval feeds what was trained on.

The 95 printable ASCII characters and four specials. The specials exist because lm-eval asks for
their ids; no model here was ever trained on one.
"""

from collections.abc import Callable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
PRINTABLE = "".join(map(chr, range(32, 127)))
LONGEST_TEXT = 64  # positions of the models


def character_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of all quickstart models; ``decode(encode(s)) == s`` for printable s."""
    vocabulary = {token: i for i, token in enumerate((*SPECIALS, *PRINTABLE))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()  # joins without spaces
    wrap: Callable[..., PreTrainedTokenizerFast] = PreTrainedTokenizerFast  # it has no types
    return wrap(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=LONGEST_TEXT,
        clean_up_tokenization_spaces=False,
    )

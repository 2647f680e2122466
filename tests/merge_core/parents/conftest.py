import pytest
import torch


@pytest.fixture(scope="module")
def bases(family, tmp_path_factory):
    """Return folders of small float32 bases; biases in ``biased``, Conv1D in the GPT-2 ones."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("bases")
    sizes = {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
    gpt2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, **sizes}
    llama = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, **sizes}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "gpt2": GPT2LMHeadModel(GPT2Config(**gpt2)),
            "gpt2-untied": GPT2LMHeadModel(GPT2Config(tie_word_embeddings=False, **gpt2)),
            "biased": LlamaForCausalLM(
                LlamaConfig(num_hidden_layers=1, attention_bias=True, **llama)
            ),
        }
        for name, model in made.items():
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
            model.save_pretrained(root / name)
    return {
        "llama": family("llama") / "base",
        "tied": family("llama-tied") / "base",
        **{name: root / name for name in made},
    }

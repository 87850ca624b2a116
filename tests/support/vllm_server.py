"""Serves random small Llamas through vLLM, in an environment that has it. Run as a program by
`tests/integrations/test_vllm.py`: it says what it finds as lines of JSON.

    python vllm_server.py make FOLDER          a model and its tokenizer, by transformers
    python vllm_server.py greedy FOLDER ...    tokens of vLLM and of transformers
    python vllm_server.py offline FOLDER       structured output, sampling, log probabilities
    python vllm_server.py refused FOLDER ...   what lists of the server's options are told
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

SEED = 20261123
WORDS = 320
SHAPE: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": WORDS, "max_position_embeddings": 512,
}  # fmt: skip


def make(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    torch.manual_seed(SEED)
    config = LlamaConfig(**SHAPE, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5 if parameter.dim() > 1 else 1.0)
    model.save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = ["<unk>", "<s>", "</s>", *letters]
    names += [f"<{i}>" for i in range(WORDS - len(names))]
    whole = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=whole, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )  # fmt: skip
    made.save_pretrained(folder)


def engine(folder: Path, **changes: Any) -> Any:
    from vllm import LLM

    settings: dict[str, Any] = {
        "max_model_len": 256, "kv_cache_memory_bytes": 16 << 20, "max_num_seqs": 16,
        "max_num_batched_tokens": 64, "dtype": "float32",
    }  # fmt: skip
    return LLM(model=str(folder), **(settings | changes))


def prompts(count: int, prefixes: int) -> list[list[int]]:
    """Prompts of 5 to 120 tokens; those with the same prefix share 64."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    shared = rng.integers(3, WORDS, (prefixes, 64)).tolist()
    made = []
    for i in range(count):
        own = rng.integers(3, WORDS, int(rng.integers(5, 56))).tolist()
        made.append(shared[i % prefixes] + own if i % 4 else own)
    return made


def greedy(folder: Path, extra: dict[str, Any], overrides: dict[str, Any]) -> None:
    """64 requests at once in 16 places: tokens of vLLM and of transformers. `overrides`: entries in place of
    config.json's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from vllm import SamplingParams

    given, count = prompts(64, 3), 16
    llm = engine(folder, additional_config=extra, enable_prefix_caching=True, hf_overrides=overrides)
    params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    outs = llm.generate([{"prompt_token_ids": p} for p in given], params)
    cached = sum(out.num_cached_tokens or 0 for out in outs)
    got = [list(out.outputs[0].token_ids) for out in outs]
    config = AutoConfig.from_pretrained(folder)
    for name, value in overrides.items():
        setattr(config, name, value)
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager"
    )
    expected = []
    for prompt in given:
        ids = torch.tensor(prompt)[None]
        with torch.no_grad():
            made = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, min_new_tokens=count,
                do_sample=False, eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        expected.append(made[0, len(prompt) :].tolist())
    print(json.dumps({"got": got, "expected": expected, "cached": cached}), flush=True)


def offline(folder: Path) -> None:
    """A choice and a JSON schema; seeds of sampling, of a prompt in chunks, too; log probabilities; prompt
    look-up."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    compact = {"backend": "xgrammar", "disable_any_whitespace": True}  # blanks would go on and on
    llm = engine(folder, structured_outputs_config=compact)
    schema = {"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]}
    structured = [StructuredOutputsParams(choice=["yes", "no"]), StructuredOutputsParams(json=schema)]
    asked = [SamplingParams(temperature=0.8, seed=1, max_tokens=40, structured_outputs=s) for s in structured]
    texts = [out.outputs[0].text for out in llm.generate(["a", "b"], asked)]
    random = SamplingParams(temperature=1.0, seed=7, max_tokens=12, ignore_eos=True)
    asked = ["abc", "abc" * 30]  # the second is read in two chunks, and then found in the cache
    pairs = [[list(o.outputs[0].token_ids) for o in llm.generate(asked, random)] for _ in range(2)]
    told = llm.generate(["hello"], SamplingParams(temperature=0, max_tokens=2, logprobs=1, prompt_logprobs=1))
    chances = [max(v.logprob for v in step.values()) for step in told[0].outputs[0].logprobs]
    plain = _repetitive(llm)
    found = {
        "texts": texts, "same": pairs[0] == pairs[1], "chances": chances,
        "prompt": len([p for p in told[0].prompt_logprobs if p]), "plain": plain,
    }  # fmt: skip
    print(json.dumps(found), flush=True)


def speculate(folder: Path) -> None:
    """Tokens with prompt look-up: the greatest, and sampled ones that can only be the greatest. Those of a
    batch without drafts, too, which vLLM's sampler of drafts cannot. The engine is in this process, which has
    Numba already, as a second engine of a program finds it."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import numba  # noqa: F401
    from vllm import SamplingParams

    llm = engine(
        folder,
        speculative_config={"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3},
    )
    params = [
        SamplingParams(max_tokens=8, ignore_eos=True, **one) for one in ({"top_k": 1}, {"temperature": 0})
    ]
    likely = [list(llm.generate(["abc"], one)[0].outputs[0].token_ids) for one in params]
    surely = ({"temperature": 0}, {"temperature": 1, "top_k": 1}, {"temperature": 1, "top_p": 1e-6})
    tokens = [_repetitive(llm, **one) for one in surely]
    print(json.dumps({"tokens": tokens, "likely": likely}), flush=True)


def refused(asked: list[list[str]]) -> None:
    """What each of these command lines of the server raises, or nothing."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser, told = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser()), []
    for options in asked:
        try:
            given = parser.parse_args(options)
            AsyncEngineArgs.from_cli_args(given).create_engine_config()
            told.append("")
        except ValueError as error:
            told.append(str(error))
    print(json.dumps({"told": told}), flush=True)


def _repetitive(llm: Any, **how: Any) -> list[list[int]]:
    """Tokens behind prompts that repeat themselves."""
    from vllm import SamplingParams

    params = SamplingParams(**{"temperature": 0, **how}, max_tokens=24, ignore_eos=True)
    given = [{"prompt_token_ids": [5, 6, 7, 8] * 6}, {"prompt_token_ids": [9, 10] * 9}]
    return [list(out.outputs[0].token_ids) for out in llm.generate(given, params)]


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        make(where)
    elif what == "greedy":
        greedy(where, *map(json.loads, sys.argv[3:5]))
    elif what == "speculate":
        speculate(where)
    elif what == "refused":
        refused(json.loads(sys.argv[3]))
    else:
        offline(where)

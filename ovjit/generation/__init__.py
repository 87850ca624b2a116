"""Text from decoders with state: sampling, speculative decoding, tokenizers of model folders and GGUF files.

    tokenizer = Tokenizer.of(path)
    decoder = Decoder.load(path)
    for token in generate(decoder, tokenizer.encode("Once"), Settings(most=32)):
        ...

`python -m ovjit generate` is the command on top of it.
"""

from ovjit.generation.decoder import Decoder
from ovjit.generation.sampling import Settings
from ovjit.generation.speculative import Assistant, Lookup, generate
from ovjit.generation.tokenizer import Tokenizer

__all__ = ["Assistant", "Decoder", "Lookup", "Settings", "Tokenizer", "generate"]

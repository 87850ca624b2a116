"""Operations on packed strings: the tokenizers and detokenizers of the namespace "extension"."""

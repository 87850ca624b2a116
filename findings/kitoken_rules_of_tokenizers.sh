#!/bin/sh
# kitoken: tokenizer.json with WhitespaceSplit gets an unknown token for every blank, and added tokens lose single_word and normalized.
#
# Versions: kitoken 0.11.1, tokenizers 0.22.2, Python 3.11, Linux x86-64.
#
# kitoken reads the files of tokenizers and others ("compatible") and encodes faster. What it does not know it refuses ("unknown variant
# `CharDelimiterSplit`"). These parts it reads, and the ids are others, without an error or a warning:
# - WhitespaceSplit removes the blanks between words. Here they stay, and as no vocabulary has them, each becomes an unknown token, or makes
#   the word behind it unknown in WordPiece. A Sequence that begins with it does so, too. Whitespace is right.
# - Unknown characters are fused to one token if they are in one word. Here they are fused across words as well, in Unigram and in BPE with
#   fuse_unk: two unknown words become one token.
# - An added token with single_word is found only where no letter is next to it; here within words as well.
# - An added token with normalized (the default for tokens that are not special) is looked for in the normalized text, itself normalized: [X] is
#   found as [x] behind Lowercase. Here it is looked for as it is written, in the lowered text, and never found.
#
# No report of these was found.
#
# Output seen on 2026-11-29:
#   BPE, Whitespace                    ab cd      tokenizers a b c d            kitoken the same
#   BPE, WhitespaceSplit               ab cd      tokenizers a b c d            kitoken a b ? c d
#   WordPiece, Whitespace              abe cd     tokenizers ab ##e cd          kitoken the same
#   WordPiece, WhitespaceSplit         abe cd     tokenizers ab ##e cd          kitoken ab ##e ?
#   Unigram, WhitespaceSplit           ab cd      tokenizers a b c d            kitoken a b ? c d
#   BPE, WhitespaceSplit, Punctuation  ab cd      tokenizers a b c d            kitoken a b ? c d
#   BPE, unknown                       a 1 2 b    tokenizers a ? ? b            kitoken the same
#   BPE, unknown, fuse_unk, one word   a 12 b     tokenizers a ? b              kitoken the same
#   BPE, unknown, fuse_unk             a 1 2 b    tokenizers a ? ? b            kitoken a ? b
#   Unigram, unknown                   a 1 2 b    tokenizers a ? ? b            kitoken a ? b
#   added                              a [X] b    tokenizers a [X] b            kitoken the same
#   added, single_word                 a [X] b    tokenizers a [X] b            kitoken the same
#   added, single_word, in a word      a[X]b      tokenizers a ? ? ? b          kitoken a [X] b
#   added, Lowercase                   a [X] b    tokenizers a [X] b            kitoken the same
#   added, Lowercase, normalized       a [X] b    tokenizers a [X] b            kitoken a ? x ? b
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q --no-deps kitoken==0.11.1 tokenizers==0.22.2
"$folder/env/bin/python" -W ignore - <<'PYTHON'
from kitoken import Kitoken
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

LETTERS = ["?", *"abcdefghijklmnopqrstuvwxyz"]
BLANKS, WORDS = pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Whitespace()
LOWER = normalizers.Lowercase()


def bpe(**options):
    return models.BPE(vocab={token: i for i, token in enumerate(LETTERS)}, merges=[], unk_token="?", **options)


def word_piece():
    return models.WordPiece(vocab={token: i for i, token in enumerate(["?", "ab", "cd", "##e"])}, unk_token="?")


def unigram():
    return models.Unigram([(token, -float(i + 1)) for i, token in enumerate(LETTERS)], unk_id=0)


def check(name, model, text, same, split=WORDS, normalizer=None, added=None):
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["?"])
    tokenizer.pre_tokenizer = split
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if added is not None:
        tokenizer.add_tokens([added])
    right = tokenizer.encode(text).ids
    found = list(Kitoken.from_tokenizers(tokenizer.to_str().encode()).encode(text, True))
    shown = [" ".join(tokenizer.id_to_token(i) for i in ids) for ids in (right, found)]
    print(f"{name:34} {text:10} tokenizers {shown[0]:18} kitoken {'the same' if right == found else shown[1]}")
    assert (right == found) == same, f"{name} has changed"


check("BPE, Whitespace", bpe(), "ab cd", True)
check("BPE, WhitespaceSplit", bpe(), "ab cd", False, BLANKS)
check("WordPiece, Whitespace", word_piece(), "abe cd", True)
check("WordPiece, WhitespaceSplit", word_piece(), "abe cd", False, BLANKS)
check("Unigram, WhitespaceSplit", unigram(), "ab cd", False, BLANKS)
sequence = pre_tokenizers.Sequence([BLANKS, pre_tokenizers.Punctuation()])
check("BPE, WhitespaceSplit, Punctuation", bpe(), "ab cd", False, sequence)

check("BPE, unknown", bpe(), "a 1 2 b", True)
check("BPE, unknown, fuse_unk, one word", bpe(fuse_unk=True), "a 12 b", True)
check("BPE, unknown, fuse_unk", bpe(fuse_unk=True), "a 1 2 b", False)
check("Unigram, unknown", unigram(), "a 1 2 b", False)

check("added", bpe(), "a [X] b", True, added=AddedToken("[X]", normalized=False))
check("added, single_word", bpe(), "a [X] b", True, added=AddedToken("[X]", normalized=False, single_word=True))
check("added, single_word, in a word", bpe(), "a[X]b", False, added=AddedToken("[X]", normalized=False, single_word=True))
check("added, Lowercase", bpe(), "a [X] b", True, normalizer=LOWER, added=AddedToken("[X]", normalized=False))
check("added, Lowercase, normalized", bpe(), "a [X] b", False, normalizer=LOWER, added=AddedToken("[X]"))
PYTHON

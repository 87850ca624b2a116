#!/bin/sh
# openvino_tokenizers: texts to split or replace become patterns, WhitespaceSplit also splits words, and runs of delimiters lose or double parts.
#
# Versions: openvino 2026.4.1, openvino-tokenizers 2026.4.1.0, transformers 5.5.4, tokenizers 0.22.2, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# convert_tokenizer turns a fast tokenizer into an OpenVINO model. What it does not know, it refuses ("Normalizer type 'Nmt' is not supported").
# These steps it converts without a word, and the tokens are others than those the language model was trained with:
# - Replace and Split take a text or a Regex. A text is used as a pattern, too: "." is any character, so all of the text is a delimiter.
# - WhitespaceSplit leaves "don't" and "stop," whole; here punctuation is cut off as by Whitespace. BertPreTokenizer splits at blanks
#   and punctuation; here Chinese characters are split as well, which is the BertNormalizer's task and can be switched off there.
# - Split with merged_with_previous of "a--b" repeats the first part in the second, with merged_with_next it drops the second delimiter.
#   Metaspace is a merged_with_next and loses all blanks of a run but the last in the same way: indented code has no indents.
# - WordPiece's max_input_chars_per_word and single_word of an added token are not read. In a WordLevel vocabulary, an added token is unknown.
# - BPE without a token for a character gives one unknown token for each byte, also with fuse_unk.
# - BertNormalizer with lowercase and strip_accents=False strips accents.
# Cause: hf_parser.py and the *_splitter functions of tokenizer_pipeline.py, and the operation RegexSplit. No report of these was found.
#
# Output seen:
#   Replace . by !                     a.b           tokenizers a!b                OpenVINO !!!
#   Split at ., isolated               a.bb          tokenizers a . bb             OpenVINO a . b b
#   Split at ., removed                a.b           tokenizers a b                OpenVINO
#   WhitespaceSplit                    don't stop,   tokenizers don't stop,        OpenVINO don ' t stop ,
#   BertPreTokenizer                   日本 x          tokenizers 日本 x               OpenVINO 日 本 x
#   Split at -, merged_with_previous   a-b           tokenizers a- b               OpenVINO a- b
#   Split at -, merged_with_previous   a--b          tokenizers a- - b             OpenVINO a- a-- b
#   Split at -, merged_with_next       a--b          tokenizers a - -b             OpenVINO a -b
#   Metaspace                          a   b         tokenizers ▁a ▁ ▁ ▁b          OpenVINO ▁a ▁b
#   WordPiece, at most 4 characters    abcde ab      tokenizers ? ab               OpenVINO abcde ab
#   AddedToken yes                     yes yesterday tokenizers yes yes terday     OpenVINO ? ? terday
#   AddedToken yes, single_word        yes yesterday tokenizers yes yesterday      OpenVINO ? ? terday
#   BPE                                aéé           tokenizers a ? ?              OpenVINO a ? ? ? ?
#   BPE, fuse_unk                      aéé           tokenizers a ?                OpenVINO a ? ? ? ?
#   BertNormalizer, accents kept       É             tokenizers é                  OpenVINO e
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q openvino==2026.4.1 openvino-tokenizers==2026.4.1.0 transformers==5.5.4 tokenizers==0.22.2 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import warnings

warnings.filterwarnings("ignore")
import openvino
from openvino_tokenizers import convert_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers
from tokenizers.pre_tokenizers import BertPreTokenizer, Metaspace, Split, WhitespaceSplit
from transformers import PreTrainedTokenizerFast

core = openvino.Core()


def word_level(words):
    return models.WordLevel(words, unk_token="?")


def check(title, text, words, wanted, seen, normalizer=None, splits=None, model=word_level, added=None):
    """Compares the tokens of `text`; `words` is the vocabulary but the unknown token "?"."""
    tokenizer = Tokenizer(model({word: i for i, word in enumerate(["?", *words])}))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splits or WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?", pad_token="?")
    if added is not None:
        fast.add_tokens([added])
    compiled = core.compile_model(convert_tokenizer(fast), "CPU")
    ids = fast(text)["input_ids"], compiled([text])["input_ids"][0].astype(int).tolist()
    right, found = (" ".join(fast.convert_ids_to_tokens(some)) for some in ids)
    print(f"{title:34} {text:13} tokenizers {right:18} OpenVINO {found}")
    assert right == wanted and found == seen, "the behaviour has changed"


parts = ["a", "b", ".", "-", "a-", "-b", "a--", "--b"]
check("Replace . by !", "a.b", ["a.b", "a!b", "!!!"], "a!b", "!!!", normalizers.Replace(".", "!"))
check("Split at ., isolated", "a.bb", ["a", "bb", "b", "."], "a . bb", "a . b b", splits=Split(".", "isolated"))
check("Split at ., removed", "a.b", parts, "a b", "", splits=Split(".", "removed"))
words = ["don't", "stop,", "don", "'", "t", "stop", ","]
check("WhitespaceSplit", "don't stop,", words, "don't stop,", "don ' t stop ,")
check("BertPreTokenizer", "日本 x", ["日本", "日", "本", "x"], "日本 x", "日 本 x", splits=BertPreTokenizer())
check("Split at -, merged_with_previous", "a-b", parts, "a- b", "a- b", splits=Split("-", "merged_with_previous"))
check("Split at -, merged_with_previous", "a--b", parts, "a- - b", "a- a-- b", splits=Split("-", "merged_with_previous"))
check("Split at -, merged_with_next", "a--b", parts, "a - -b", "a -b", splits=Split("-", "merged_with_next"))
check("Metaspace", "a   b", ["▁a", "▁", "▁b"], "▁a ▁ ▁ ▁b", "▁a ▁b", splits=Metaspace())


def word_pieces(words):
    return models.WordPiece(words, unk_token="?", max_input_chars_per_word=4)


def byte_pairs(words, fuse=False):
    return models.BPE(words, [], unk_token="?", fuse_unk=fuse)


check("WordPiece, at most 4 characters", "abcde ab", ["abcde", "ab"], "? ab", "abcde ab", model=word_pieces)
check("AddedToken yes", "yes yesterday", ["terday", "yesterday"], "yes yes terday", "? ? terday", added=AddedToken("yes"))
single = AddedToken("yes", single_word=True)
check("AddedToken yes, single_word", "yes yesterday", ["terday", "yesterday"], "yes yesterday", "? ? terday", added=single)
check("BPE", "aéé", ["a"], "a ? ?", "a ? ? ? ?", model=byte_pairs)
check("BPE, fuse_unk", "aéé", ["a"], "a ?", "a ? ? ? ?", model=lambda words: byte_pairs(words, fuse=True))
lower = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
check("BertNormalizer, accents kept", "É", ["é", "e"], "é", "e", lower)
PYTHON

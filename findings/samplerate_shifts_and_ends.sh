#!/bin/sh
# python-samplerate: a click is one sample later by "linear" than by "sinc", streams lose their end, and one cut into blocks of 100 loses a sample.
#
# Versions: samplerate 0.2.4 (libsamplerate 0.2.2), soxr 1.1.0, numpy 2.4.6, Python 3.11, Linux x86-64.
#
# resample(x, ratio, converter) converts a whole signal, and Resampler.process(block, ratio, end_of_input) one that comes in blocks. The converters
# differ in quality by their documentation; of time it says nothing.
# - The sinc converters keep each event where it is: the sample i comes out at i * ratio, as from soxr in all qualities. "linear" and
#   "zero_order_hold" have the first sample twice and all others one input sample later; with the ratio 1, where nothing is to be converted, too. A program that
#   takes the fast converter for previews, or for one of two channels or for labels (a mask, where sinc would overshoot), has them
#   shifted: 125 microseconds at 8 kHz, and by 4 samples of the result if it quadruples the rate.
# - process(..., end_of_input=True) returns at most as many samples as the last block has times the ratio, although the samples that the filter still holds
#   back are due then. The last 144 input samples by "sinc_best" are missing (3 ms at 48 kHz), for blocks of all sizes; a further call with no samples
#   returns none. resample and CallbackResampler return all of them ("linear" at ratio 1.5 one more by the latter).
# - By "linear" the ratio 1.5 gives another signal for blocks of 100 than for the whole: one sample is dropped, and all later ones are
#   shifted. For blocks of one sample and of 4800 there is no shift.
# Nothing warns. Libsamplerate's issue 44 asks for the sample that comes twice, python-samplerate's issue 7 is about input that is not used, and its
# pull request 22 about the end.
#
# Output seen on 2026-12-01:
#   click at 100, ratio 4.0   sinc_best 400   sinc_fastest 400   linear 404   zero_order_hold 404   soxr QQ 400   soxr HQ 400
#   click at 100, ratio 2.0   sinc_best 200   sinc_fastest 200   linear 202   zero_order_hold 202   soxr QQ 200   soxr HQ 200
#   click at 100, ratio 1.0   sinc_best 100   sinc_fastest 100   linear 101   zero_order_hold 101   soxr QQ 100   soxr HQ 100
#   linear, ratio 1, of [0, 1, 2, 3, 4]: [0.0, 0.0, 1.0, 2.0, 3.0]
#   ratio 1.5   sinc_best     whole 7200   callback 7200   blocks of 4800 7200   480 6985   100 6985   1 6985
#   ratio 1.5   sinc_fastest  whole 7200   callback 7200   blocks of 4800 7200   480 7171   100 7171   1 7171
#   ratio 1.5   linear        whole 7200   callback 7201   blocks of 4800 7200   480 7199   100 7199   1 7201
#   linear, largest difference from the whole: blocks of 4800 0.000   480 0.050   100 0.050   1 0.000
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install -q samplerate==0.2.4 soxr==1.1.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import itertools

import numpy as np
import samplerate
import soxr

CONVERTERS = ("sinc_best", "sinc_fastest", "linear", "zero_order_hold")
click = np.zeros(480, np.float32)
click[100] = 1
for ratio in (4.0, 2.0, 1.0):
    places = {name: int(np.argmax(samplerate.resample(click, ratio, name))) for name in CONVERTERS}
    places |= {f"soxr {quality}": int(np.argmax(soxr.resample(click, 1000, 1000 * ratio, quality=quality))) for quality in ("QQ", "HQ")}
    print(f"click at 100, ratio {ratio}   " + "   ".join(f"{name} {place}" for name, place in places.items()))
    for name, place in places.items():
        late = name in ("linear", "zero_order_hold")
        assert place == (100 + late) * ratio, "the behaviour has changed"
same = samplerate.resample(np.arange(5, dtype=np.float32), 1.0, "linear").tolist()
print(f"linear, ratio 1, of [0, 1, 2, 3, 4]: {same}")
assert same == [0, 0, 1, 2, 3], "samplerate has changed"

signal = np.sin(np.arange(4800) * 0.05).astype(np.float32)
RATIO = 1.5


def convert_blocks(name, size):
    """The signal converted in blocks, the last of which ends it."""
    resampler = samplerate.Resampler(name, 1)
    blocks = [resampler.process(signal[start : start + size], RATIO, end_of_input=start + size >= len(signal)) for start in range(0, len(signal), size)]
    assert len(resampler.process(signal[:0], RATIO, end_of_input=True)) == 0
    return np.concatenate(blocks)


def convert_by_callback(name):
    blocks = itertools.chain((signal[start : start + 100] for start in range(0, len(signal), 100)), itertools.repeat(None))
    with samplerate.CallbackResampler(lambda: next(blocks), RATIO, name, 1) as resampler:
        return np.concatenate(list(itertools.takewhile(len, (resampler.read(500) for _ in itertools.count()))))


SIZES = (4800, 480, 100, 1)
EXPECTED = {"sinc_best": (7200, 6985, 6985, 6985), "sinc_fastest": (7200, 7171, 7171, 7171), "linear": (7200, 7199, 7199, 7201)}
for name, expected in EXPECTED.items():
    whole = samplerate.resample(signal, RATIO, name)
    called = len(convert_by_callback(name))
    streams = [convert_blocks(name, size) for size in SIZES]
    lengths = tuple(map(len, streams))
    print(
        f"ratio {RATIO}   {name:13} whole {len(whole)}   callback {called}   blocks of "
        + "   ".join(f"{size} {length}" for size, length in zip(SIZES, lengths))
    )
    assert len(whole) == 7200 and called == 7200 + (name == "linear") and lengths == expected, "samplerate has changed"
    differences = [float(np.abs(stream[:6900] - whole[:6900]).max()) for stream in streams]
    assert name == "linear" or max(differences) < 1e-6
print("linear, largest difference from the whole: blocks of " + "   ".join(f"{size} {number:.3f}" for size, number in zip(SIZES, differences)))
assert max(differences[0], differences[3]) < 1e-6 and min(differences[1:3]) > 0.04, "samplerate has changed"
PYTHON

"""The key as a property: blobs and cached models of users who share it, and of no others."""

from __future__ import annotations

import logging

import pytest

import ovjit
from ovjit.disk.keys import user_key
from ovjit.storage.blob import key_of
from ovjit.storage.container import Container
from ovjit.storage.graph_format import parse
from tests.support.blob_models import X, small_model

KEY = "c3" * 32
OTHER = "d4" * 32


def load(content: bytes, key: str | bytes | None) -> bool:
    """Whether the blob's code is used with this key."""
    config = {} if key is None else {"OVJIT_KEY": key}
    model = ovjit.Core().import_model(content, "CPU", config)
    assert model(X)[0].shape == (2, 5)
    return bool(model.get_property("LOADED_FROM_CACHE"))


def test_who_has_the_key_uses_the_code(caplog) -> None:
    model = ovjit.Core().compile_model(small_model(), "CPU", {"OVJIT_KEY": KEY})
    content = model.export_model().getvalue()
    assert load(content, KEY) and load(content, bytes.fromhex(KEY)) and load(content, KEY.upper())
    with caplog.at_level(logging.WARNING, "ovjit"):
        assert not load(content, None) and not load(content, OTHER)
    assert caplog.text.count("another user's key") == 2 and KEY not in caplog.text
    own = ovjit.Core().compile_model(small_model(), "CPU").export_model().getvalue()
    assert load(own, None) and not load(own, KEY)


def test_the_property_goes_before_the_variable(monkeypatch) -> None:
    content = ovjit.Core().compile_model(small_model(), "CPU", {"OVJIT_KEY": KEY}).export_model().getvalue()
    monkeypatch.setenv("OVJIT_KEY", OTHER)
    assert load(content, KEY) and not load(content, None)
    monkeypatch.setenv("OVJIT_KEY", KEY)
    assert load(content, None)


def test_the_key_stays_out_of_the_blob_and_a_blob_brings_none() -> None:
    config = {"OVJIT_KEY": KEY, "PERF_COUNT": True}
    content = ovjit.Core().compile_model(small_model(), "CPU", config).export_model().getvalue()
    header = parse(Container(memoryview(content)).sections["header"], "header")
    assert header["properties"] == {"PERF_COUNT": True}
    assert KEY.encode() not in content and bytes.fromhex(KEY) not in content
    # exported again with the key that it was imported with
    again = ovjit.Core().import_model(content, "CPU", {"OVJIT_KEY": KEY}).export_model().getvalue()
    assert again == content
    stranger = ovjit.Core().import_model(content, "CPU").export_model().getvalue()
    assert load(stranger, None) and not load(stranger, KEY)


def test_cached_models_of_another_key_are_not_used(tmp_path) -> None:
    model = small_model()

    def cached(key: str) -> bool:
        config = {"CACHE_DIR": tmp_path, "OVJIT_KEY": key}
        return bool(ovjit.Core().compile_model(model, "CPU", config).get_property("LOADED_FROM_CACHE"))

    assert [cached(KEY), cached(KEY), cached(OTHER), cached(OTHER)] == [False, True, False, True]


def test_on_a_core() -> None:
    core = ovjit.Core()
    core.set_property({"OVJIT_KEY": KEY})
    content = core.compile_model(small_model(), "CPU").export_model().getvalue()
    assert load(content, KEY)
    assert core.import_model(content, "CPU").get_property("LOADED_FROM_CACHE")
    assert key_of({"OVJIT_KEY": ""}) == user_key()


@pytest.mark.parametrize("key", ["c3" * 31, "c3" * 32 + "c", "no hexadecimal digits " * 4, b"short", 5, None])
def test_a_bad_key_is_refused_and_not_repeated(key) -> None:
    with pytest.raises(RuntimeError, match="OVJIT_KEY") as caught:
        ovjit.Core().compile_model(small_model(), "CPU", {"OVJIT_KEY": key})
    assert str(key) not in str(caught.value)

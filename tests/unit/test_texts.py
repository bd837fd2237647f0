"""Texts laid end to end read as the list they were made of."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newslora.data import store
from newslora.data.texts import Quarantine, Quarantined, RowSpool, Texts

texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=20)


@given(written=texts, data=st.data())
def test_texts_read_like_a_list(written: list[str], data: st.DataObject) -> None:
    found = Texts.of(written)
    assert list(found) == written
    assert [found[place] for place in range(len(written))] == written
    bounds = st.none() | st.integers(-25, 25)
    part = slice(data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([None, 1, 2, -1])))
    assert list(found[part]) == written[part]
    places = data.draw(st.lists(st.integers(0, max(0, len(written) - 1)), max_size=len(written) and 10))
    view = found[np.array(places, dtype=np.int64)]
    assert list(view) == [written[place] for place in places]
    assert list(view[::-1]) == [written[place] for place in places][::-1]
    again = np.arange(len(places), dtype=np.int64)[::2]
    assert list(view[again]) == [written[place] for place in places][::2]


def test_a_place_beyond_the_last_is_refused() -> None:
    found = Texts.of(["a", "b"])
    assert found[-1] == "b"
    for place in (2, -3):
        with pytest.raises(IndexError):
            found[place]


@pytest.mark.parametrize("spill", [8, 10**6])
def test_rows_set_aside_read_as_they_were(spill: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SPILL", spill)
    spool = RowSpool()
    spool.set_aside(3, "no label", "{}")
    spool.set_aside(5, "broken \udcff", "x\ny")
    spool.set_aside(9, "no label", "")
    held = spool.columns()
    aside = Quarantine("news.csv", Texts(held["aside"], held["aside_offsets"]), dict(spool.reasons))
    rows = [(3, "no label", "{}"), (5, "broken \udcff", "x\ny"), (9, "no label", "")]
    wanted = [Quarantined("news.csv", *row) for row in rows]
    assert list(aside) == wanted
    assert len(aside) == 3
    assert aside.reasons == {"no label": 2, "broken \udcff": 1}


def test_reasons_are_counted_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("newslora.data.texts.REASONS", 2)
    spool = RowSpool()
    for reason in ("a", "b", "c", "a", "d"):
        spool.set_aside(1, reason, "")
    assert dict(spool.reasons) == {"a": 2, "b": 1}
    held: dict[str, Any] = spool.columns()
    assert len(held["aside_offsets"]) == 6  # the rows themselves are all there

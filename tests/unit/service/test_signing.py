"""Signed URLs: every part of them counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.errors import Code, CoordError
from coordinator.service.data.signing import SignedQuery, UrlSigner, blob_path, upload_path

NOW = 1_800_000_000_000
KEY = bytes(range(32))
PATH = blob_path("physics", "a" * 64)


def query_of(url: str) -> SignedQuery:
    return SignedQuery(**dict(part.split("=") for part in url.split("?")[1].split("&")))


def refused(signer: UrlSigner, direction: str, path: str, query: SignedQuery, now_ms: int = NOW) -> bool:
    try:
        signer.check(direction, path, query, now_ms)  # type: ignore[arg-type]
    except CoordError as error:
        assert error.code is Code.BAD_SIGNATURE
        assert len(query.s) < 20 or query.s not in str(error)  # a letter stands in any text
        return True
    return False


def test_what_was_signed_is_good_until_it_expires_and_for_nothing_else() -> None:
    """Another path, direction, key or time: no."""
    signer = UrlSigner(KEY, 900.0)
    url = signer.sign("GET", PATH, 1_234, NOW)
    query = query_of(url)
    assert 1_234 == signer.check("GET", PATH, query, NOW) == signer.check("GET", PATH, query, NOW + 899_000)
    assert url.startswith(PATH + "?")
    assert refused(signer, "GET", PATH, query, NOW + 900_000)
    assert refused(signer, "PUT", PATH, query)
    assert refused(signer, "GET", blob_path("physicz", "a" * 64), query)
    assert refused(signer, "GET", upload_path("a" * 32), query)
    assert refused(UrlSigner(KEY[::-1], 900.0), "GET", PATH, query)
    assert refused(signer, "GET", PATH, SignedQuery())


@given(st.sampled_from("xnks"), st.text(max_size=50))
def test_no_other_value_of_any_part_is_taken(part: str, value: str) -> None:
    """Whatever it is, also what is no ASCII, no number, or very long."""
    signer = UrlSigner(KEY, 900.0)
    query = query_of(signer.sign("GET", PATH, 1_234, NOW))
    values = {name: getattr(query, name) for name in "xnks"}
    if values[part] != value:
        assert refused(signer, "GET", PATH, SignedQuery(**{**values, part: value}))


def test_a_short_key_is_no_key() -> None:
    with pytest.raises(CoordError, match="16 bytes"):
        UrlSigner(KEY[:16], 900.0)

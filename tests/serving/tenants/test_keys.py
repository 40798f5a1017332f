"""Keys: made, parsed, hashed, verified."""

from __future__ import annotations

import math
import string

from hypothesis import given
from hypothesis import strategies as some

from serving.tenants.keys import Key, hash_key, is_hash, new_key, parse_key, verify_key

BASE62 = string.digits + string.ascii_letters
KEYS = some.builds(new_key)


@given(KEYS)
def test_a_new_key_is_parsed_and_verified(key: Key) -> None:
    assert parse_key(key.text) == key
    assert verify_key(key.text, hash_key(key.text))


def test_a_secret_cannot_be_guessed() -> None:
    assert len({new_key().text for _ in range(1000)}) == 1000
    secret = len(new_key().text) - len("pv_") - 10 - 6
    assert secret * math.log2(62) >= 160


@given(KEYS, some.integers(0, 50), some.integers(1, 64))
def test_a_wrong_character_is_noticed_without_a_lookup(key: Key, at: int, away: int) -> None:
    characters = BASE62 + "_ é"
    other = characters[(characters.index(key.text[at]) + away) % len(characters)]
    assert parse_key(key.text[:at] + other + key.text[at + 1 :]) is None


@given(KEYS, some.integers(0, 50))
def test_a_key_cut_short_or_made_longer_is_noticed(key: Key, length: int) -> None:
    assert parse_key(key.text[:length]) is None
    assert parse_key(key.text + "A") is None
    assert parse_key(key.text + "\n") is None


@given(some.text())
def test_any_other_text_is_no_key(text: str) -> None:
    assert parse_key(text) is None


@given(KEYS, KEYS)
def test_another_key_does_not_verify(one: Key, other: Key) -> None:
    assert not verify_key(other.text, hash_key(one.text))


@given(some.text(), some.text())
def test_verifying_anything_is_no_error(text: str, stored: str) -> None:
    assert not verify_key(text, stored)
    assert verify_key(text, hash_key(text))


def test_the_same_key_has_another_hash_each_time_and_none_has_the_secret() -> None:
    key = new_key()
    one, two = hash_key(key.text), hash_key(key.text)
    assert one != two
    assert is_hash(one) and not is_hash(one + "0") and not is_hash(one.upper())
    assert key.text[13:] not in one


def test_a_stored_hash_stays_good() -> None:
    # Computed with `openssl dgst -sha256 -mac HMAC`: what is in a file must verify for ever.
    text = "pv_" + "A" * 48
    assert hash_key(text, bytes(16)) == f"hs256${'00' * 16}${HMAC_OF_AS}"


def test_neither_repr_nor_str_shows_the_secret() -> None:
    key = new_key()
    assert key.text[13:] not in f"{key!r} {key}"
    assert key.id in str(key)


HMAC_OF_AS = "10989b06c987d6fff5b270973c7d4d9bcbaf013ec1673a3484bd023b473e5173"

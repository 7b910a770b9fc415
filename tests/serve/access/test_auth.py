"""Who may call what, by metadata alone."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import (
    EmbedkitError,
    InvalidInput,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
)
from embedkit.serve.access.auth import Access, AuthConfig

KEY, OTHER, ADMIN = "k" * 32, "o" * 32, "m" * 32
EMBED, LOAD = "EmbeddingService/Embed", "ModelService/LoadModel"


@pytest.fixture
def access():
    return Access(AuthConfig(keys=(f"alice:{KEY}", f"bob:{OTHER}"), admin_tokens=(ADMIN,)))


def bearer(secret):
    return (("user-agent", "x"), ("authorization", f"Bearer {secret}"))


def test_without_keys_nothing_stands_before_ordinary_methods():
    assert Access().check_of(EMBED) is None
    assert Access(AuthConfig(admin_tokens=(ADMIN,))).check_of(EMBED) is None


@pytest.mark.parametrize(
    "metadata",
    [
        bearer(KEY),
        (("authorization", f"bearer  {KEY} "),),
        (("x-api-key", KEY),),
        (("authorization", "Basic abc"), ("x-api-key", KEY)),
        (("authorization-bin", b"x"), ("x-api-key", KEY), ("x-api-key", "second")),
    ],
)
def test_a_key_names_its_caller(access, metadata):
    assert access.check_of(EMBED)(metadata).name == "alice"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ((), "expected an API key, got none; send it as 'authorization: Bearer KEY'"),
        ((("authorization", KEY),), "got none"),
        ((("authorization", f"Basic {KEY}"),), "got none"),
        ((("x-api-key", KEY.encode()),), "got none"),
        ((("authorization", b"Bearer " + KEY.encode()),), "got none"),
        (bearer(""), "valid API key"),
        (bearer(KEY[:-1]), "valid API key"),
        (bearer(KEY + "k"), "valid API key"),
        (bearer(KEY.upper()), "valid API key"),
        (bearer("alice:" + KEY), "valid API key"),
        ((*bearer("wrong"), ("x-api-key", KEY)), "valid API key"),
        (bearer("x" * 513), "at most 512 characters"),
        (bearer("\udcff\udcfe"), "valid API key"),
        (bearer("кл\0юч"), "valid API key"),
    ],
)
def test_a_missing_or_wrong_key_is_unauthenticated(access, metadata, message):
    with pytest.raises(Unauthenticated, match=message) as caught:
        access.check_of(EMBED)(metadata)
    assert KEY not in str(caught.value)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["authorization", "x-api-key", "other"]),
            st.one_of(st.text(), st.binary(), st.text().map(lambda t: f"Bearer {t}")),
        )
    )
)
def test_no_metadata_gets_in_by_accident_or_breaks_the_check(metadata):
    access = Access(AuthConfig(keys=(KEY,), admin_tokens=(ADMIN,)))
    for rpc in (EMBED, LOAD):
        with pytest.raises((Unauthenticated, PermissionDenied)):
            access.check_of(rpc)(metadata)


def test_the_admin_token_opens_everything(access):
    assert access.check_of(LOAD)(bearer(ADMIN)).name.startswith("admin-")
    assert access.check_of(EMBED)(bearer(ADMIN)).name.startswith("admin-")


@pytest.mark.parametrize(
    ("keys", "metadata", "error", "message"),
    [
        ((KEY,), bearer(KEY), PermissionDenied, "expected the admin token, got the API key"),
        ((KEY,), bearer("wrong"), Unauthenticated, "valid API key"),
        ((KEY,), (), Unauthenticated, "got none"),
        ((), (), PermissionDenied, "expected the admin token, got none"),
        ((), bearer("wrong"), PermissionDenied, "expected the admin token"),
    ],
)
def test_an_admin_call_without_the_admin_token_is_refused(keys, metadata, error, message):
    access = Access(AuthConfig(keys=keys, admin_tokens=(ADMIN,)))
    with pytest.raises(error, match=message):
        access.check_of(LOAD)(metadata)


@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_without_an_admin_token_the_refusal_says_how_to_set_one(keys):
    with pytest.raises(PermissionDenied, match="--admin-token-file FILE or EMBEDKIT_ADMIN"):
        Access(AuthConfig(keys=keys)).check_of(LOAD)(bearer(KEY))


def test_each_key_has_its_own_rate_and_admins_have_none(access):
    config = AuthConfig((f"alice:{KEY}", f"bob:{OTHER}"), admin_tokens=(ADMIN,), rate_limit=2)
    check = Access(config, clock=lambda: 5.0).check_of(EMBED)
    for _ in range(2):
        check(bearer(KEY)).enter()
    with pytest.raises(RateLimited):
        check(bearer(KEY)).enter()
    check(bearer(OTHER)).enter()
    assert check(bearer(KEY)).name == "alice"  # who it is, is known all the same
    for _ in range(5):
        check(bearer(ADMIN)).enter()


def test_two_keys_of_one_name_share_its_rate_also_over_a_rotation(tmp_path):
    file, now = tmp_path / "keys", [0.0]
    file.write_text(f"alice:{KEY}\n")
    config = AuthConfig(keys_file=file, rate_limit=2)
    check = Access(config, clock=lambda: now[0]).check_of(EMBED)
    for _ in range(2):
        check(bearer(KEY)).enter()
    file.write_text(f"alice:{KEY}\nalice:{OTHER}\n")
    os.utime(file, (1, 1))
    now[0] = 1.25  # the file is read again, and the tokens are back
    for secret in (KEY, OTHER):
        check(bearer(secret)).enter()
    for secret in (KEY, OTHER):
        with pytest.raises(RateLimited):
            check(bearer(secret)).enter()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate_limit": 5.0}, "expected API keys with a rate limit"),
        ({"rate_limit": -1.0, "keys": (KEY,)}, "at least 0"),
        ({"rate_limit": float("nan"), "keys": (KEY,)}, "at least 0"),
    ],
)
def test_a_rate_that_cannot_be_kept_is_refused(values, message):
    with pytest.raises(InvalidInput, match=message):
        AuthConfig(**values)


def test_secrets_are_not_in_the_representation():
    text = repr(AuthConfig(keys=(KEY,), admin_tokens=(ADMIN,)))
    assert KEY not in text
    assert ADMIN not in text
    assert issubclass(RateLimited, EmbedkitError)

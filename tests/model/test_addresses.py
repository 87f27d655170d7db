"""Addresses of managers: what is one, and what is none."""

from __future__ import annotations

import pytest

from hasched.model.addresses import check_api_url, split_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:7412", ("10.0.0.1", 7412)),
        ("m1.example-corp.com:1", ("m1.example-corp.com", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1]:7412", ("fe80::1", 7412)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "m1", ":7412", "m1:", "m1:0", "m1:65536", "m1:٣", "m1:" + "9" * 5000, "::1:7412", "[m1]:7412", "a b:7412",
     "m1:7412\n", "user@m1:7412", "m1/x:7412", "m" * 600 + ":7412", "m1:+7"],
)  # fmt: skip
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        split_address(text)
    with pytest.raises(ValueError, match="https://HOST"):
        check_api_url(f"https://{text}")


def test_a_url_is_an_address_behind_https_alone() -> None:
    assert check_api_url("https://m1:7411") == check_api_url("https://m1:7411/") == "https://m1:7411"
    for text in ("http://m1:7411", "m1:7411", "https://m1:7411//", "https://m1:7411/x", "https://m1:7411?x"):
        with pytest.raises(ValueError, match="https://HOST"):
            check_api_url(text)

"""Each host of a database URL gets a URL of its own."""

from bridge.url import each_database


def test_each_host_has_the_account_the_database_and_the_options() -> None:
    assert each_database("postgresql://u:p@a:1,b:2/db?sslmode=require") == [
        "postgresql://u:p@a:1/db?sslmode=require",
        "postgresql://u:p@b:2/db?sslmode=require",
    ]


def test_url_with_one_host_or_none_is_unchanged() -> None:
    for url in ("postgresql://u@[::1]:1/db", "postgresql:///db?host=/run/postgresql"):
        assert each_database(url) == [url]

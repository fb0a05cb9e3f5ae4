"""Dates in text: every form is found and read back as it was written."""

import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldwise.data.dates import FORMS, find_form, in_words, parse

DAYS = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2068, 12, 31))


@pytest.mark.parametrize("form", FORMS)
@given(days=st.lists(DAYS, min_size=1, max_size=5))
def test_what_is_written_is_read(form, days):
    if ":" not in form:
        days = [dt.datetime(day.year, day.month, day.day) for day in days]
    else:
        days = [day.replace(microsecond=0, second=day.second if "%S" in form else 0) for day in days]
    text = pl.Series([day.strftime(form.replace("%.f", "")) for day in days])
    assert parse(text, form).to_list() == days
    found = find_form(text)
    assert found is not None
    assert form in (found.form, found.rival) or parse(text, found.form).to_list() == days


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["1/1/2011", "12/31/2011"], "%m/%d/%Y"),
        (["1/1/2011", "31/12/2011"], "%d/%m/%Y"),
        (["1/13/11"], "%m/%d/%y"),
        (["1.2.2011"], "%d.%m.%Y"),
        (["2011-01-02T03:04:05Z", "2011-01-02T03:04:05.25+01:00"], "%Y-%m-%d %H:%M:%S%.f"),
        (["2011-01-02 03:04"], "%Y-%m-%d %H:%M"),
        (["1/2/2011 3:04 PM"], "%m/%d/%Y %I:%M %p"),
        (["3 March 2020", "3 Mar 2020"], "%d %B %Y"),
        (["March 3, 2020"], "%B %d, %Y"),
        (["01-JAN-99"], "%d-%B-%y"),
    ],
)
def test_common_forms(cells, form):
    assert find_form(pl.Series(cells)).form == form


@pytest.mark.parametrize(
    "cells",
    [
        ["13/13/2011"],
        ["2011-02-30"],
        ["1/1/2011", "soon"],
        ["1/13/2011", "13/1/2011"],
        ["1-2"],
        ["555-12-1234"],
        ["192.168.1.1"],
        ["1.2.3"],
        ["0011-01-01"],
        ["2011"],
        [""],
        [None],
    ],
)
def test_what_is_no_date(cells):
    assert find_form(pl.Series(cells, dtype=pl.String)) is None


def test_words():
    assert {in_words(form) for form in FORMS} >= {
        "year-month-day",
        "month/day/year",
        "day.month.year",
        "month day, year",
    }

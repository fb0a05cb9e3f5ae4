"""Reading: every source gives the same table, and every bad one a message with the place and the cure."""

import csv
import datetime as dt
import gzip
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldwise.data.read import find_columns, fingerprint, from_arrays, read_table
from foldwise.errors import DataError

DATA = Path(__file__).parents[3] / "shared" / "data"


def data_file(name: str) -> Path:
    if not (path := DATA / name).exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return path


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def message(source, **options) -> str:
    with pytest.raises(DataError) as caught:
        read_table(source, **options)
    assert caught.value.hint, "every error has a cure"
    return str(caught.value)


class TestText:
    def test_types_and_missing_marks(self, write):
        frame = read_table(write("i,f,b,t,e\n1,1.5,true,x,NA\n?,nan,False, y ,\nNULL,-2e3,,N/A,None\n"))
        assert frame.dtypes == [pl.Int64, pl.Float64, pl.Boolean, pl.String, pl.String]
        assert frame.rows() == [
            (1, 1.5, True, "x", None),
            (None, None, False, "y", None),
            (None, -2000.0, None, None, None),
        ]

    @pytest.mark.parametrize("separator", [",", ";", "\t", "|", ", ", " ; "])
    def test_separator_is_found(self, write, separator):
        lines = [["a", "b", "c"], ["1", "x y", "2.5"], ["2", "z", "3"]]
        frame = read_table(write("\n".join(separator.join(line) for line in lines)))
        assert frame.columns == ["a", "b", "c"]
        assert frame.row(0) == (1, "x y", 2.5)

    def test_separator_is_found_beside_commas_in_cells(self, write):
        assert read_table(write("a;b\n1,5;x\n2,5;y, z\n")).columns == ["a", "b"]
        assert read_table(write('a,b\n"x;y;z",1\n"u;v;w",2\n')).row(0) == ("x;y;z", 1)

    def test_aligned_numbers_are_cut_at_blanks(self, write):
        frame = read_table(write(" 18.0   8  307.0\n 15.0   8  350.0\n", "auto.data"))
        assert frame.rows() == [(18.0, 8, 307.0), (15.0, 8, 350.0)]

    @pytest.mark.parametrize("separator", ["\\t", "tab", "\t"])
    def test_separator_can_be_said(self, write, separator):
        assert read_table(write("a b\tc,d\n1\t2\n"), separator=separator).columns == ["a b", "c,d"]
        assert read_table(write("a§b\n1§2\n"), separator="§").columns == ["a", "b"]

    def test_quotes(self, write):
        frame = read_table(write('name,n\n"a, ""b""\nc",1\n12" vinyl,2\n'))
        assert frame.rows() == [('a, "b"\nc', 1), ('12" vinyl', 2)]

    def test_blank_after_the_separator_and_then_a_quote(self, write):
        assert read_table(write('a, b\n1, "x, y"\n2, z\n')).row(0) == (1, "x, y")

    @pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
    def test_line_ends_and_blank_lines(self, write, ending):
        frame = read_table(write(ending.join(["", "a,b", "1,2", "", "   ", "3,4", "", ""])))
        assert frame.rows() == [(1, 2), (3, 4)]

    def test_byte_order_mark(self, write):
        assert read_table(write("\ufeffa,b\n1,2\n")).columns == ["a", "b"]
        assert read_table(write("\ufeffa,b\n1,2\n"), encoding="utf-8").columns == ["a", "b"]

    def test_encoding(self, write):
        path = write("name,n\nZoë,1\nx,2\n".encode("latin-1"))
        assert read_table(path, encoding="latin-1")["name"][0] == "Zoë"
        assert read_table(write("a,b\nß,1\n".encode("utf-16")), encoding="utf-16")["a"][0] == "ß"

    @pytest.mark.parametrize("name", ["t.csv.gz", "t.data.gz", "T.CSV.GZ"])
    def test_gzip(self, write, name):
        assert read_table(write(gzip.compress(b"a,b\n1,2\n"), name)).rows() == [(1, 2)]

    @pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.data", "v1.2.csv"])
    def test_endings(self, write, name):
        assert read_table(write("a\tb\n1\t2\n", name)).rows() == [(1, 2)]

    def test_unnamed_columns_get_a_name(self, write):
        assert read_table(write(",a\n0,1.5\n1,2.5\n")).columns == ["column_0", "a"]

    def test_one_column(self, write):
        assert read_table(write("a\n1\n2\n"))["a"].to_list() == [1, 2]

    def test_integers_beyond_64_bits_are_floats(self, write):
        assert read_table(write("a,b\n99999999999999999999,1\n1,2\n")).dtypes == [pl.Float64, pl.Int64]


class TestHeader:
    @pytest.mark.parametrize(
        "text",
        [
            "5.1,3.5,1\n4.9,3.0,0\n",
            "M,0.455,15\nM,0.35,7\nF,0.53,9\n",
            "A11,6,A34\nA12,48,A32\nA11,12,A34\n",
            "p,x,s\ne,x,s\np,b,s\ne,x,y\n",
            "?,1.5\n2,2.5\n",
            "1,2,3,4\n5,6,7,8\n9,10,11,12\n",
            "1,5;2,5\n3,5;4,5\n",
            "5,3.2,1.1\n",
        ],
    )
    def test_rows_without_names(self, write, text):
        frame = read_table(write(text))
        assert frame.columns == [f"column_{i}" for i in range(frame.width)]
        assert frame.height == text.count("\n")

    @pytest.mark.parametrize(
        "text",
        [
            "a,b\n1,2\n",
            "town,weather\nBern,sun\nUri,rain\n",
            "2nd floor,price\n1,2\n3,4\n",
            "0,1,2,3\n5.1,3.5,1,a\n4.9,3.0,0,b\n",
            ",0,1,2\n0,5.1,3.5,1\n1,4.9,3.0,0\n",
            "Letter,1,2,3,4\nT,2,8,3,5\nI,5,12,3,7\n",
            "country,2000,2001,2002,2003\nPeru,1,2,5,1\nChad,4,4,9,2\n",
            "a,b\nNA,\n,\n",
        ],
    )
    def test_names(self, write, text):
        frame = read_table(write(text))
        assert frame.height == text.count("\n") - 1
        assert frame.columns[-1] == text.split("\n")[0].split(",")[-1]

    def test_can_be_said(self, write):
        path = write("2010,2020\n1,2\n")
        assert read_table(path, header=True).columns == ["2010", "2020"]
        assert read_table(write("a,b\nc,d\n"), header=False).rows() == [("a", "b"), ("c", "d")]

    @pytest.mark.parametrize(
        ("name", "columns", "rows"),
        [
            ("abalone/abalone.csv", 9, 4177),
            ("adult/adult-train.csv", 15, 32561),
            ("adult/adult-test.csv", 15, 16281),
            ("credit-g/german.csv", 21, 1000),
            ("higgs-sample/binary.train", 29, 7000),
            ("phoneme/phoneme.csv", 6, 5404),
            ("spambase/spambase.data", 58, 4601),
            ("wine-quality/winequality-red.csv", 12, 1599),
            ("wine-quality/winequality-white.csv", 12, 4898),
        ],
    )
    def test_real_files_without_names(self, name, columns, rows):
        frame = read_table(data_file(name))
        assert frame.columns == [f"column_{i}" for i in range(columns)]
        assert frame.height == rows

    @pytest.mark.parametrize(
        ("name", "last", "rows", "missing"),
        [
            ("ames/ames.csv", "Sale.Condition", 2930, None),
            ("bike-sharing/day.csv", "cnt", 731, 0),
            ("bike-sharing/hour.csv", "cnt", 17379, 0),
            ("california-housing/housing.csv", "ocean_proximity", 20640, 207),
            ("diamonds/diamonds.csv", "z", 53940, 0),
            ("letter/letter-recognition.data", "16", 20000, 0),
            ("penguins/penguins.csv", "sex", 344, 19),
        ],
    )
    def test_real_files_with_names(self, name, last, rows, missing):
        frame = read_table(data_file(name))
        assert (frame.columns[-1], frame.height) == (last, rows)
        assert missing is None or sum(frame.null_count().row(0)) == missing


class TestBadText:
    def test_empty(self, write):
        for content in ("", "\n \n", "\ufeff"):
            assert "is empty" in message(write(content))

    def test_header_only(self, write):
        assert "has a header and no rows" in message(write("a,b\n"))
        assert "has a header and no rows" in message(write("a,b\n\n"), header=True)

    def test_ragged_rows_name_their_lines(self, write):
        text = message(write("a,b,c\n1,2,3\n\n4,5\n6,7,8,9\n"))
        assert "line 1 has 3 cells, line 4 has 2, line 5 has 4" in text

    def test_ragged_rows_name_their_lines_after_quoted_line_breaks(self, write):
        assert "line 4 has 1" in message(write('a,b\n"x\ny",2\n3\n'))

    def test_many_ragged_rows_are_counted(self, write):
        text = message(write("a,b\n" + "1,2\n" * 9 + "1\n" * 9))
        assert "line 15 has 1, and 4 more lines" in text

    def test_header_that_lacks_the_row_names(self, write):
        assert "the header lacks one name" in message(write("a,b\nr1,1,2\nr2,3,4\n"))

    def test_a_quote_that_is_never_closed(self, write):
        text = message(write('a,b\n1,2\n"3,4\n5,6\n'))
        assert "line 3" in text
        assert "quotes" in text
        assert "never closed" in message(write('a,b\n1,2\n"' + "x,y\n" * 50_000))

    def test_repeated_names(self, write):
        text = message(write("a,b,a\n1,2,3\n"))
        assert "column name `a` is there more than once in `table.csv`" in text
        assert "--no-header" in text

    @pytest.mark.parametrize("other", [";", "|", "\t"])
    def test_wrong_separator(self, write, other):
        text = message(write(f"a{other}b\n1{other}2\n"), separator=",")
        assert "has one column when it is cut at ','" in text
        assert f"--separator '{other}'" in text

    def test_separator_of_two_characters(self, write):
        assert "not one character" in message(write("a,b\n1,2\n"), separator="::")

    def test_not_utf8(self, write):
        text = message(write(b"a,b\n1,2\nZo\xeb,3\n"))
        assert "byte 10, in line 3" in text
        assert "--encoding latin-1" in text
        assert "--encoding utf-16" in message(write("a,b\n1,2\n".encode("utf-16")))

    def test_unknown_encoding(self, write):
        assert "no text encoding `latin-99`" in message(write("a,b\n1,2\n"), encoding="latin-99")

    @pytest.mark.parametrize("encoding", ["base64", "rot13", "zlib", "undefined", "idna", "punycode"])
    def test_codecs_that_are_no_text_encodings(self, write, encoding):
        message(write(b"a,b\n1,2\xff\n"), encoding=encoding)

    def test_zero_bytes(self, write):
        assert "zero byte in line 2" in message(write(b"a,b\n1,\0002\n"))

    def test_unknown_ending(self, write):
        assert "save it as .csv or .parquet" in message(write("a,b\n", "table.xlsx"))
        message(write("a,b\n", "table"))
        message(write(b"", "table.parquet.gz"))
        message(write(b"", ".gz"))

    def test_missing_file(self, write):
        path = write("a,b\n1,2\n", "train.csv")
        assert "Did you mean `train.csv`?" in message(path.with_name("trian.csv"))
        assert "the folder" in message(path.parent / "nowhere" / "train.csv")
        message("a,b\n1,2\n")
        message("x" * 5000)

    def test_directory(self, write):
        folder = write("a,b\n1,2\n", "train.csv").parent
        text = message(folder)
        assert "is a directory" in text
        assert "`train.csv`" in text

    @pytest.mark.parametrize("name", ["t.csv.gz", "t.parquet", "t.arrow", "t.feather"])
    def test_damaged_files(self, write, name):
        assert "t." in message(write(b"PAR1 no such thing", name))

    @pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.csv.gz"])
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_cut_off_files(self, write, tmp_path, name, share):
        frame = pl.DataFrame({"a": range(999), "b": [f"text {i}" for i in range(999)]})
        buffer = io.BytesIO()
        {"t.parquet": frame.write_parquet, "t.arrow": frame.write_ipc, "t.csv.gz": frame.write_csv}[name](
            buffer
        )
        whole = gzip.compress(buffer.getvalue()) if name.endswith("gz") else buffer.getvalue()
        message(write(whole[: int(share * len(whole))], name))

    @pytest.mark.parametrize("option", [{"separator": ";"}, {"encoding": "utf-8"}, {"header": True}])
    def test_options_of_text_are_refused_elsewhere(self, write, option):
        assert "cannot be used with" in message({"a": [1]}, **option)
        assert "cannot be used with" in message(write(b"", "t.parquet"), **option)


class TestBinaryFiles:
    @pytest.mark.parametrize("ending", ["parquet", "arrow", "feather", "ipc"])
    def test_round_trip(self, tmp_path, ending):
        frame = pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [0.5, float("nan")]})
        path = tmp_path / f"t.{ending}"
        (frame.write_parquet if ending == "parquet" else frame.write_ipc)(path)
        assert read_table(path).rows() == [(1, "x", 0.5), (None, "y", None)]

    def test_arrow_stream(self, tmp_path):
        pl.DataFrame({"a": [1, 2]}).write_ipc_stream(tmp_path / "t.arrow")
        assert read_table(tmp_path / "t.arrow").rows() == [(1,), (2,)]

    def test_a_star_in_the_name_is_a_star(self, tmp_path):
        pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a*.parquet")
        pl.DataFrame({"a": [2]}).write_parquet(tmp_path / "ab.parquet")
        assert read_table(tmp_path / "a*.parquet").height == 1


CELLS = {"n": [1, None, 3], "x": [0.5, float("nan"), 2.0], "t": ["a", None, "c"], "b": [True, False, True]}


class TestMemory:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: CELLS,
            lambda: pd.DataFrame(CELLS).astype({"n": "Int64"}),
            lambda: pd.DataFrame(CELLS).astype({"n": "Int64", "t": object, "b": object}),
            lambda: pl.DataFrame(CELLS, strict=False),
            lambda: pl.LazyFrame(CELLS, strict=False),
            lambda: pa.table(CELLS),
            lambda: [dict(zip(CELLS, row, strict=True)) for row in zip(*CELLS.values(), strict=True)],
            lambda: {name: pd.Series(cells) for name, cells in CELLS.items()} | {"n": CELLS["n"]},
        ],
        ids=["mapping", "pandas", "pandas objects", "polars", "lazy", "arrow", "records", "series"],
    )
    def test_every_library_gives_one_table(self, make):
        frame = read_table(make())
        assert frame.rows() == [(1, 0.5, "a", True), (None, None, None, False), (3, 2.0, "c", True)]
        assert fingerprint(frame) == fingerprint(read_table(CELLS))

    def test_pandas_is_read_without_arrow(self):
        code = (
            "import sys; sys.modules['pyarrow'] = None\n"
            "import pandas as pd; from foldwise.data.read import fingerprint, read_table\n"
            "dates = pd.to_datetime(['2020-01-01', None])\n"
            "print(fingerprint(read_table(pd.DataFrame({'n': [1, 2], 't': ['a', None], 'd': dates}))))"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        cells = {"n": [1, 2], "t": ["a", None], "d": [dt.datetime(2020, 1, 1), None]}
        assert told.strip() == fingerprint(read_table(cells))

    def test_categories_are_text(self):
        frame = read_table(pd.DataFrame({"c": pd.Categorical(["x", "y", None])}))
        assert frame["c"].to_list() == ["x", "y", None]
        assert frame["c"].dtype == pl.String
        enum = pl.DataFrame({"c": pl.Series(["x"], dtype=pl.Enum(["x", "y"]))})
        assert read_table(enum)["c"].dtype == pl.String

    def test_numbered_pandas_columns(self):
        assert read_table(pd.DataFrame(np.eye(2))).columns == ["0", "1"]

    def test_mixed_cells_are_text(self):
        frame = read_table(pd.DataFrame({"m": [1, "a", None, pd.NA, 2.5]}))
        assert frame["m"].to_list() == ["1", "a", None, None, "2.5"]
        assert read_table({"m": [1, "a", float("nan")]})["m"].to_list() == ["1", "a", None]

    def test_arrays(self):
        frame = read_table(np.array([[1.0, np.nan], [3.0, 4.0]], dtype=np.float32))
        assert frame.columns == ["x0", "x1"]
        assert frame.rows() == [(1.0, None), (3.0, 4.0)]
        assert read_table(np.array([["a", 1], ["b", None]], dtype=object)).rows() == [("a", 1), ("b", None)]
        assert read_table([[1, 2], [3, 4]]).rows() == [(1, 2), (3, 4)]
        assert read_table(np.arange(3)).shape == (3, 1)

    def test_torch(self):
        torch = pytest.importorskip("torch")
        assert read_table(torch.eye(2)).rows() == [(1.0, 0.0), (0.0, 1.0)]
        message(torch.eye(2, requires_grad=True))

    def test_columns_of_one_series(self):
        assert read_table(pd.Series([1, 2], name="a")).columns == ["a"]
        assert read_table(pl.Series([1, 2])).columns == ["x0"]

    def test_decimals_are_floats(self):
        frame = read_table(pl.DataFrame({"d": pl.Series(["1.5", None]).cast(pl.Decimal(10, 2))}))
        assert frame["d"].to_list() == [1.5, None]
        assert frame["d"].dtype == pl.Float64

    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column name `a` is there more than once"),
            (pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "more than once"),
            ({"a": [1, 2], "b": [1]}, "`a` 2, `b` 1"),
            ({"a": 1}, "column `a` is one value"),
            ({"a": "abc"}, "column `a` is one value"),
            ({"a": [1, [2]]}, "column `a` holds lists"),
            ({"a": [np.eye(2), np.eye(2)]}, "column `a` holds lists"),
            (pd.DataFrame(), "0 rows and 0 columns"),
            (pl.DataFrame({"a": []}), "0 rows and 1 columns"),
            ([], "0 rows"),
            (np.zeros((2, 3, 4)), "shape (2, 3, 4)"),
            (np.zeros((2, 0)), "0 columns"),
            (np.array([1j]), "complex"),
            ([[1, 2], [3]], "this is no table"),
            (None, "`NoneType`"),
            (7, "`int`"),
        ],
    )
    def test_what_is_no_table(self, source, problem):
        assert problem in message(source)

    def test_sparse(self):
        sparse = pytest.importorskip("scipy.sparse")
        assert "toarray" in message(sparse.eye(3))


class TestFromArrays:
    @pytest.mark.parametrize(
        ("y", "names"),
        [
            ([0, 1], ["y"]),
            (np.array([[0], [1]]), ["y"]),
            (np.zeros((2, 2)), ["y0", "y1"]),
            (pd.Series([0, 1], name="price"), ["price"]),
            (pd.Series([0, 1]), ["y"]),
            (pl.Series("price", [0, 1]), ["price"]),
            (pd.DataFrame({"p": [0, 1], "q": [1, 0]}), ["p", "q"]),
            (pa.table({"p": [0, 1]}), ["p"]),
            ({"p": [0, 1]}, ["p"]),
            (["a", None], ["y"]),
        ],
    )
    def test_names_of_targets(self, y, names):
        frame, targets = from_arrays(np.eye(2), y)
        assert targets == names
        assert frame.columns == ["x0", "x1", *names]

    def test_a_column_named_y_is_left_alone(self):
        frame, targets = from_arrays({"y": [1, 2]}, [0, 1])
        assert targets == ["target"]
        assert frame.rows() == [(1, 0), (2, 1)]

    def test_the_answer_among_the_features_is_refused(self):
        table = pd.DataFrame({"a": [1, 2], "price": [3, 4]})
        with pytest.raises(DataError, match="`price` is in X and is also the name of y"):
            from_arrays(table, table["price"])

    def test_lengths_differ(self):
        with pytest.raises(DataError, match="X has 2 rows and y has 3"):
            from_arrays(np.eye(2), [1, 2, 3])


class TestFindColumns:
    def test_by_number_without_a_header(self):
        frame = pl.DataFrame({"column_0": [1], "column_1": [2], "column_2": [3]})
        for name in (2, "2", "column_2", -1, "-1"):
            assert find_columns(frame, [name]) == ["column_2"]
        assert find_columns(pl.DataFrame({"x0": [1], "x1": [2]}), [1]) == ["x1"]

    def test_a_name_wins_over_a_number(self):
        assert find_columns(pl.DataFrame({"1": [1], "0": [2]}), ["0"]) == ["0"]

    @pytest.mark.parametrize(
        ("columns", "name", "cure"),
        [
            (["price", "area"], "prcie", "Did you mean `price`?"),
            (["price", "area"], "PRICE", "Did you mean `price`?"),
            (["price", "area"], 0, "the columns are `price`, `area`"),
            (["column_0", "column_1"], "price", "column_0 … column_1"),
            (["column_0", "column_1"], 2, "column_0 … column_1"),
        ],
    )
    def test_cures(self, columns, name, cure):
        with pytest.raises(DataError, match="there is no target") as caught:
            find_columns(pl.DataFrame({c: [1] for c in columns}), [name], what="target")
        assert cure in caught.value.hint

    def test_twice(self):
        with pytest.raises(DataError, match="`a` is named twice"):
            find_columns(pl.DataFrame({"a": [1]}), ["a", "a"])


TEXTS = st.text(alphabet="ab ;,|\t\"'\n.-0é<>&", max_size=6)


@st.composite
def text_tables(draw) -> list[list[str]]:
    width = draw(st.integers(2, 4))
    return draw(st.lists(st.lists(TEXTS, min_size=width, max_size=width), min_size=2, max_size=6))


class TestProperties:
    @given(
        rows=text_tables(),
        separator=st.sampled_from(",;\t|"),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    )
    def test_text_comes_back_as_it_was_written(self, tmp_path_factory, rows, separator, quoting):
        rows = [[f"x{cell}x" for cell in row] for row in rows]
        path = tmp_path_factory.mktemp("csv") / "t.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=separator, quoting=quoting, lineterminator="\n").writerows(rows)
        frame = read_table(path, header=False, separator=separator)
        assert [list(row) for row in frame.rows()] == rows

    @given(rows=text_tables(), separator=st.sampled_from(",;\t|"))
    def test_a_quote_around_one_cell_changes_nothing(self, tmp_path_factory, rows, separator):
        plain = [["x" + re.sub(r'[;,|\t"\n]', "", cell) + "x" for cell in row] for row in rows]
        quoted = [[f'"{plain[0][0]}"', *plain[0][1:]], *plain[1:]]
        path = tmp_path_factory.mktemp("csv") / "t.csv"
        tables = []
        for cells in (plain, quoted):
            path.write_text("\n".join(separator.join(row) for row in cells), encoding="utf-8")
            tables.append(read_table(path, header=False))
        assert tables[0].equals(tables[1])
        assert [list(row) for row in tables[0].rows()] == plain

    @given(
        st.lists(
            st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1)),
            min_size=1,
        )
    )
    def test_numbers_come_back_bit_by_bit(self, tmp_path_factory, rows):
        path = tmp_path_factory.mktemp("csv") / "t.csv"
        path.write_text("f,i\n" + "".join(f"{x!r},{i}\n" for x, i in rows))
        frame = read_table(path)
        assert frame["f"].to_list() == [x for x, _ in rows]
        assert frame["i"].to_list() == [i for _, i in rows]

    @given(st.binary(max_size=200) | st.text('ab1,;"\n\r \t|.?-\x1c\u2028é', max_size=60).map(str.encode))
    def test_any_bytes_give_a_table_or_a_cure(self, tmp_path_factory, content):
        path = tmp_path_factory.mktemp("bytes") / "t.csv"
        path.write_bytes(content)
        try:
            height = read_table(path).height
        except DataError as error:
            height = len(error.hint)
        assert height > 0


class TestFingerprint:
    FRAME = pl.DataFrame(
        {"n": [1, None, 3], "t": ["a", "bc", None], "f": [0.5, None, 1.0], "b": [True, None, False]}
    )

    @pytest.mark.parametrize(
        "changed",
        [
            FRAME.reverse(),
            FRAME.rename({"n": "m"}),
            FRAME.select("t", "n", "f", "b"),
            FRAME.head(2),
            FRAME.cast({"n": pl.Float64}),
            FRAME.with_columns(n=pl.Series([1, 0, 3])),
            FRAME.with_columns(t=pl.Series(["ab", "c", None])),
            FRAME.with_columns(t=pl.Series(["a", "bc", ""])),
            FRAME.with_columns(f=pl.Series([0.5, 0.0, 1.0])),
            FRAME.with_columns(b=pl.Series([True, False, False])),
        ],
    )
    def test_every_change_shows(self, changed):
        assert fingerprint(changed) != fingerprint(self.FRAME)

    def test_chunks_do_not_show(self):
        parts = pl.concat([self.FRAME.head(1), self.FRAME.tail(2)], rechunk=False)
        assert fingerprint(parts) == fingerprint(self.FRAME)

    def test_every_type_has_one(self):
        frame = pl.DataFrame(
            {"d": pl.Series(["2020-01-01"]).str.to_date(), "l": [[1, 2]], "s": [{"a": 1}], "z": [None]}
        )
        assert fingerprint(frame) == fingerprint(frame.clone())
        assert fingerprint(frame) != fingerprint(frame.with_columns(l=pl.Series([[1, 3]])))

    def test_another_process_agrees(self):
        code = (
            "import polars as pl; from foldwise.data.read import fingerprint;"
            "print(fingerprint(pl.DataFrame({'t': ['a', 'é', None], 'n': [1.5, 2, None]})))"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert told.strip() == fingerprint(pl.DataFrame({"t": ["a", "é", None], "n": [1.5, 2, None]}))

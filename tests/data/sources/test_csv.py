from __future__ import annotations

import pytest

from thirtytwo.data.load import load_dataset
from thirtytwo.errors import DataError, UnknownNameError

ROWS = [(f"{name}/{number}.png", name) for name in ("cat", "dog") for number in range(4)]


def write(make, tmp_path, lines, encoding="utf-8", name="labels.csv"):
    make.tree(tmp_path, {"cat": 4, "dog": 4})
    (tmp_path / name).write_bytes("\n".join(lines).encode(encoding))
    return str(tmp_path / name)


def table(separator=",", header=("file", "label")):
    return [separator.join(row) for row in (header, *ROWS)]


def test_empty_cells_at_the_end_of_rows_are_no_fault(make, tmp_path):
    assert len(load_dataset(write(make, tmp_path, [*table(), "cat/0.png,cat,,"]), whole=True).train) == 8


@pytest.mark.parametrize("line", ["", "  "])
def test_blank_lines_are_no_rows(line, make, tmp_path):
    header, *rows = table()
    lines = [line, header, *rows[:4], line, *rows[4:], line, line]
    assert len(load_dataset(write(make, tmp_path, lines), whole=True).train) == 8
    with pytest.raises(DataError, match=r"in these lines: 3\."):
        load_dataset(write(make, tmp_path, [header, line, "cat/0.png,"]), whole=True)


def test_one_class_is_not_a_matter_of_folders(make, tmp_path):
    file = write(make, tmp_path, ["file,label", "cat/0.png,cat", "cat/1.png,cat"])
    with pytest.raises(DataError) as caught:
        load_dataset(file)
    assert "folder" not in caught.value.fix


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_separators_and_encodings(make, tmp_path, separator, encoding):
    lines = [line.replace(f"{separator}cat", f"{separator}kätzchen") for line in table(separator)]
    data = load_dataset(write(make, tmp_path, lines, encoding), whole=True)
    assert data.classes == ("dog", "kätzchen")
    assert data.train.counts.tolist() == [4, 4]


def test_named_columns(make, tmp_path):
    file = write(make, tmp_path, table(header=("photo", "species")))
    assert load_dataset(f"{file}?image=photo&label=species", whole=True).classes == ("cat", "dog")
    with pytest.raises(UnknownNameError, match="no column 'specie'"):
        load_dataset(f"{file}?image=photo&label=specie")


def test_folder_with_metadata(make, tmp_path):
    write(make, tmp_path, table(header=("file_name", "label")), name="metadata.csv")
    assert load_dataset(str(tmp_path), whole=True).train.counts.tolist() == [4, 4]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("labels.csv", "pets"),
        ("Data.CSV", "pets"),
        ("train.csv", "pets"),
        ("beetles.csv", "beetles"),
        ("a.b.tsv", "a.b"),
    ],
)
def test_a_table_whose_name_says_nothing_is_called_by_its_folder(make, tmp_path, file, name):
    assert load_dataset(write(make, tmp_path / "pets", table(), name=file), whole=True).name == name


def test_repeated_row_counts_once(make, tmp_path):
    data = load_dataset(write(make, tmp_path, [*table(), "cat/0.png,cat"]), whole=True)
    assert len(data.train) == 8
    assert "repeated rows, in these lines: 10" in data.warnings[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat/0.png,dog", "'cat' in line 2 and 'dog' in line 10"),
        ("cat/0.png,cat, light", r"which has 2, in 1 row, in these lines: 10; line 10 has 3, .*'light'"),
        ("cat/0.png,", "no label in 1 of 9 rows, in these lines: 10"),
        ("https://x.org/9.png,cat", "Addresses are not downloaded"),
        ("cat/9.png,cat", r"1 of 9 images is missing: cat/9.png \(line 10\)"),
    ],
)
def test_faults(make, tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        load_dataset(write(make, tmp_path, [*table(), line]))


def test_paths_with_the_separator_of_windows(make, tmp_path):
    lines = [line.replace("/", "\\") for line in table()]
    assert any("\\" in line for line in lines)
    assert len(load_dataset(write(make, tmp_path, lines), whole=True).train) == 8


def test_splits_and_groups(make, tmp_path):
    lines = ["file,label,split", *(f"{file},{label},{'test' if '3' in file else 'train'}" for file, label in ROWS)]
    data = load_dataset(write(make, tmp_path, lines))
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (6, 2)
    lines = ["file,label,group", *(f"{file},{label},{label}{int(file[4]) // 2}" for file, label in ROWS)]
    data = load_dataset(write(make, tmp_path, lines))
    assert data.test is not None
    assert set(data.train.groups.tolist()).isdisjoint(data.test.groups.tolist())


def test_metadata_without_labels_leaves_class_folders(make, tmp_path):
    write(make, tmp_path, ["file_name,note", "cat/0.png,x"], name="metadata.csv")
    assert load_dataset(str(tmp_path), whole=True).classes == ("cat", "dog")


def test_missing_csv(make, tmp_path):
    file = write(make, tmp_path, table())
    with pytest.raises(UnknownNameError, match="There is no file"):
        load_dataset(file.replace("labels", "label"))


def test_advice_names_the_file_as_it_was_given(make, tmp_path):
    file = write(make, tmp_path, ["a,b", "1,2"])
    with pytest.raises(DataError) as caught:
        load_dataset(file)
    assert f"'{file}?image=NAME&label=NAME'" in str(caught.value)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("separator", [",", ";"])
def test_no_header(order, separator, make, tmp_path):
    lines = [separator.join(row[place] for place in order) for row in ROWS]
    data = load_dataset(write(make, tmp_path, lines), whole=True)
    assert data.classes == ("cat", "dog")
    assert data.train.counts.tolist() == [4, 4]
    assert "no header" in data.warnings[0]


def test_no_header_and_splits(make, tmp_path):
    lines = [f"{file},{'test' if '3' in file else 'train'},{label}" for file, label in ROWS]
    data = load_dataset(write(make, tmp_path, lines))
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (6, 2)


def test_no_header_and_unclear_columns(make, tmp_path):
    lines = [f"{file},{label},{number}" for number, (file, label) in enumerate(ROWS)]
    file = write(make, tmp_path, lines)
    with pytest.raises(DataError, match="no header.*cat/0.png") as caught:
        load_dataset(file)
    header = (caught.value.fix or "").rpartition(": ")[2]
    assert header == "file,label,column 3"
    write(make, tmp_path, [header, *lines])
    assert load_dataset(file, whole=True).train.counts.tolist() == [4, 4]


def test_no_header_and_a_missing_image(make, tmp_path):
    lines = ["cat/none.png,cat", *(f"{file},{label}" for file, label in ROWS)]
    with pytest.raises(DataError, match=r"1 of 9 images is missing: cat/none.png \(line 1\)"):
        load_dataset(write(make, tmp_path, lines))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("header", [True, False])
def test_utf16_without_a_byte_order_mark(encoding, header, make, tmp_path):
    lines = [line.replace(",cat", ",kätzchen 虫") for line in table()[not header :]]
    data = load_dataset(write(make, tmp_path, lines, encoding), whole=True)
    assert data.classes == ("dog", "kätzchen 虫")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04 xl/workbook.xml", "workbook"),
        (b"file,label\ncat/0.png,a\0b\n", "not a text file"),
        (b'file,label\n"cat/0.png,' + b"a" * 140_000, "quotation mark"),
    ],
)
def test_files_that_are_no_tables(content, words, make, tmp_path):
    file = write(make, tmp_path, table())
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_dataset(file)


@pytest.mark.parametrize(
    ("word", "split"),
    [("training", "train"), ("Dev", "val"), ("valid", "val"), ("validation", "val"), ("TEST", "test")],
)
def test_spellings_of_splits(word, split, make, tmp_path):
    lines = ["file,label,split", *(f"{file},{label},{word if '3' in file else 'train'}" for file, label in ROWS)]
    stored = load_dataset(write(make, tmp_path, lines), whole=True).stored
    assert len(stored[split]) == (8 if split == "train" else 2)


@pytest.mark.parametrize(
    ("header", "role", "named"),
    [
        ("file,label,class", "label", ["'label', 'class'", "line 2: 'cat', 'x'"]),
        ("file,Target,CLASS", "label", ["'CLASS', 'Target'", "line 2: 'x', 'cat'"]),
        ("file,label,label", "label", ["2 columns 'label'"]),
        ("file,label,file", "image", ["2 columns 'file'"]),
    ],
)
def test_columns_of_the_same_meaning_that_differ(header, role, named, make, tmp_path):
    file = write(make, tmp_path, [header, *(f"{image},{label},x" for image, label in ROWS)])
    with pytest.raises(DataError) as caught:
        load_dataset(file)
    assert all(words in str(caught.value) for words in named)
    if "columns for" in str(caught.value):
        command = (caught.value.fix or "").rpartition(": ")[2].strip("'")
        assert f"?{role}=" in command
        assert load_dataset(f"{file}?{role}={header.split(',')[1]}", whole=True).classes == ("cat", "dog")


def test_columns_of_the_same_meaning_that_agree(make, tmp_path):
    file = write(make, tmp_path, ["file,label,class", *(f"{image},{label},{label}" for image, label in ROWS)])
    assert load_dataset(file, whole=True).classes == ("cat", "dog")


def test_a_column_that_is_named_twice_cannot_be_chosen(make, tmp_path):
    file = write(make, tmp_path, ["file,kind,kind", *(f"{image},{label},{label}" for image, label in ROWS)])
    with pytest.raises(DataError, match="2 columns 'kind'"):
        load_dataset(f"{file}?label=kind")


def test_the_name_of_a_file_begins_no_note(make, tmp_path):
    """Notes are shown with a capital first letter."""
    data = load_dataset(write(make, tmp_path, table()[1:], name="nohead.csv"), whole=True)
    assert "nohead.csv" in data.skipped[0]
    assert not data.skipped[0].startswith("nohead")


def test_cells_that_a_spreadsheet_could_compute(make, tmp_path):
    """An apostrophe before a formula is taken away, but not from the name of an existing file."""
    for number, name in enumerate(("=a.png", "'=b.png", "c.png", "d.png")):
        (tmp_path / name).write_bytes(make.png(number))
    (tmp_path / "t.csv").write_text("file,label\n'=a.png,'=x\n'=b.png,'=x\nc.png,y\nd.png,y\n")
    data = load_dataset(str(tmp_path / "t.csv"))
    assert data.classes == ("=x", "y")
    assert sorted(file for part in data.stored.values() for file in part.files) == [
        "'=b.png",
        "=a.png",
        "c.png",
        "d.png",
    ]

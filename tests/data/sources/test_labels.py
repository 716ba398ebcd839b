import pytest

from ssl_transfer.data.sources.labels import number_labels, parse_label


@pytest.mark.parametrize(
    "text, label",
    [
        (b"3", 3),
        (b" 07\n", 7),
        (b"-1", -1),
        (b"\xef\xbb\xbf5", 5),
        (b"golden retriever\r\n", "golden retriever"),
        ("Käfer".encode(), "Käfer"),
        (b"n01440764", "n01440764"),
    ],
)
def test_a_label_is_a_whole_number_or_a_name(text, label):
    assert parse_label(text, "0.cls") == label


@pytest.mark.parametrize(
    "text",
    [b"", b" ", b"3.0", b"1e3", b"nan", b"1_0", b"1 5", b"\xff\xfe", b"cat\ndog", b'{"label": 3}', b"[cat]", b"9" * 50]
    + ["١".encode()],
)
def test_what_is_neither_is_refused_with_its_place_and_content(text):
    with pytest.raises(
        ValueError, match=r"^x\.tar:0\.cls holds b['\"].*neither a whole number nor the name of a class"
    ):
        parse_label(text, "x.tar:0.cls")


def number(labels):
    return number_labels(labels, "the table", "row {}".format)


def test_numbers_are_kept_and_names_numbered_in_their_order():
    assert number([4, 0, 4]) == ([4, 0, 4], None)
    assert number([True, False]) == ([1, 0], None)
    assert number(["dog", "ant", "dog", "cat"]) == ([2, 0, 2, 1], ["ant", "cat", "dog"])


def test_hidden_labels_are_none_only_if_all_are_hidden():
    assert number([-1, None, -7]) == (None, None)
    for labels in ([0, -1, 2, None], ["a", None, "b", None]):
        with pytest.raises(ValueError, match=r"2 of 4 images in the table have no class, the first is row 1"):
            number(labels)


@pytest.mark.parametrize(
    "labels, words",
    [
        ([3, "cat"], "row 1 in the table has the label 'cat', where row 0 has 3"),
        (["cat", 3], "row 1 in the table has the label 3, where row 0 has 'cat'"),
        ([1.5, 2.0], "row 0 in the table has the label 1.5:"),
        (["cat", ""], "row 1 in the table has the label ''"),
        ([[1, 2], [3]], r"row 0 in the table has the label \[1, 2\]"),
    ],
)
def test_labels_of_several_kinds_are_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        number(labels)

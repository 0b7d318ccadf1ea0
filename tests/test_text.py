"""Widths, cutting and escaping of text."""

from kvideo.text import cut, display_width, enumerate_words, pad, plural, printable


def test_widths():
    assert display_width("abc") == 3
    assert display_width("動画") == 4
    assert display_width("e\u0301") == 1  # a combining accent


def test_cut_and_pad():
    assert cut("abcdef", 6) == "abcdef" and cut("abcdef", 5) == "abcd…"
    assert cut("動画動画", 5) == "動画…" and cut("動画動画", 4) == "動…"
    assert cut("abc", 1) == "…" and cut("abc", 0) == ""
    assert cut("abcdef", 4, mark="") == "abcd"
    assert pad("ab", 4) == "ab  " and pad("動", 4, ">") == "  動" and pad("abc", 2) == "abc"


def test_what_could_garble_a_line_is_replaced():
    assert printable("plain é 動画") == "plain é 動画"
    assert printable("a\nb\x1b[2Jc\u202ed\udce9") == "a?b?[2Jc?d?"
    # Joiners that scripts and emoji need stay, and so do wide blanks.
    for text in ("می\u200cخواهم", "👩\u200d🚒", "a\u3000b"):
        assert printable(text) == text


def test_words():
    assert [plural(n, "video") for n in (0, 1, 2, 1234)] == [
        "0 videos",
        "1 video",
        "2 videos",
        "1,234 videos",
    ]
    assert plural(2, "class") == "2 classes"
    assert enumerate_words([]) == "" and enumerate_words(["a"]) == "a"
    assert enumerate_words(["a", "b", "c"]) == "a, b and c"
    assert enumerate_words(list("abcdef"), limit=3) == "a, b and 4 more"

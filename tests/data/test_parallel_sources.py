"""Parallel text is read alike from every kind of file; all that is wrong with it is told in one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from insight.data.sources.decoding import TextRepairs
from insight.data.sources.parallel import Pair, expand_parallel
from insight.runtime.errors import DataError

PAIRS = [("a house", "una casa"), ("", "vacía"), ("a  tree", "un árbol"), ("a house", "una casa")]
# No surrogates, which are no text, and no line breaks, which end a line.
SENTENCES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\t"), max_size=12)


def read(files: object, source: str = "en", target: str = "es", invalid_text: str = "error") -> list[Pair]:
    found = expand_parallel(files, source, target, "train_files")  # type: ignore[arg-type]
    return [pair for each in found for pair in each.pairs(invalid_text)]


def write_tsv(path: Path, pairs: list[Pair]) -> object:
    rows = ["note\tes\ten", *(f"{number}\t{es}\t{en}" for number, (en, es) in enumerate(pairs))]
    path = path.with_suffix(".tsv")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8", newline="")
    return str(path)


def write_jsonl(path: Path, pairs: list[Pair]) -> object:
    path = path.with_suffix(".jsonl")
    lines = [json.dumps({"es": es, "en": en}, ensure_ascii=False) for en, es in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return str(path)


def write_parquet(path: Path, pairs: list[Pair]) -> object:
    path = path.with_suffix(".parquet")
    columns = {"en": [pair[0] for pair in pairs], "es": [pair[1] for pair in pairs]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def write_lines(path: Path, pairs: list[Pair]) -> object:
    named = {}
    for number, (side, ending) in enumerate((("source", ".en"), ("target", ".txt"))):
        file = path.with_suffix(ending)
        file.write_text("".join(f"{pair[number]}\n" for pair in pairs), encoding="utf-8", newline="")
        named[side] = str(file)
    return named


WRITERS = [write_tsv, write_jsonl, write_parquet, write_lines]


@pytest.mark.parametrize("write", WRITERS)
def test_every_kind_of_file_gives_the_same_pairs(
    write: Callable[[Path, list[Pair]], object], tmp_path: Path
) -> None:
    assert read(write(tmp_path / "text", PAIRS)) == PAIRS


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=8), st.sampled_from(WRITERS))
def test_order_and_number_of_the_pairs_stay(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: list[Pair],
    write: Callable[[Path, list[Pair]], object],
) -> None:
    found = read(write(tmp_path_factory.mktemp("text") / "text", pairs))
    if write is write_lines:
        # A byte order mark belongs to the file, not to its first sentence.
        pairs = [
            tuple(side.removeprefix("\ufeff") if not number else side for side in pair)  # type: ignore[misc]
            for number, pair in enumerate(pairs)
        ]
    assert found == pairs


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["gz", "bz2", "xz", "zst"])
def test_compressed_files(write: Callable[[Path, list[Pair]], object], name: str, tmp_path: Path) -> None:
    functions: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": zstandard.ZstdCompressor().compress,
    }

    def compressed(file: str) -> str:
        Path(f"{file}.{name}").write_bytes(functions[name](Path(file).read_bytes()))
        return f"{file}.{name}"

    files = write(tmp_path / "text", PAIRS)
    named = {side: compressed(file) for side, file in files.items()} if isinstance(files, dict) else None
    assert read(named or compressed(str(files))) == PAIRS


def test_lists_and_globs_keep_their_order_and_name_a_file_once(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        write_jsonl(tmp_path / name, [(name, name.upper())])
    b, everything = str(tmp_path / "b.jsonl"), str(tmp_path / "*.jsonl")
    assert read([b, everything]) == [("b", "B"), ("a", "A"), ("c", "C")]
    for side in ("en", "es"):
        (tmp_path / f"1.{side}").write_text(f"one {side}\n")
        (tmp_path / f"2.{side}").write_text(f"two {side}\n")
    aligned = {"source": str(tmp_path / "*.en"), "target": [str(tmp_path / "1.es"), str(tmp_path / "2.es")]}
    assert read(aligned) == [("one en", "one es"), ("two en", "two es")]


def test_an_embedded_corpus(tmp_path: Path) -> None:
    pairs = read("corpus:kjv-rv1909-validation")
    assert len(pairs) == 400
    assert all(all(pair) for pair in pairs)


def test_columns_by_number_need_no_header(tmp_path: Path) -> None:
    (tmp_path / "text.tsv").write_text("uno\tone\ndos\ttwo\n", encoding="utf-8")
    assert read(str(tmp_path / "text.tsv"), "2", "1") == [("one", "uno"), ("two", "dos")]


# ---------------------------------------------------------------------- lines


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    sentence = "one\u2028still\u2029one\u0085line\x0b\x0c\x1cof\ttext"
    assert len(sentence.splitlines()) > 1
    files = write_lines(tmp_path / "text", [(sentence, sentence.upper()), ("two", "dos")])
    assert read(files) == [(sentence, sentence.upper()), ("two", "dos")]


def test_byte_order_marks_and_carriage_returns_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_bytes("\ufeffone\r\ntwo\r\n".encode())
    (tmp_path / "a.es").write_bytes(b"uno\ndos")
    aligned = {"source": str(tmp_path / "a.en"), "target": str(tmp_path / "a.es")}
    assert read(aligned) == [("one", "uno"), ("two", "dos")]
    (tmp_path / "a.tsv").write_bytes("\ufeffen\tes\r\none\tuno\r\n".encode())
    assert read(str(tmp_path / "a.tsv")) == [("one", "uno")]


@pytest.mark.parametrize(("num_source", "num_target"), [(3, 5), (5, 3), (4, 5)])
def test_files_of_different_length(num_source: int, num_target: int, tmp_path: Path) -> None:
    source, target = tmp_path / "a.en", tmp_path / "a.es"
    source.write_text("line\n" * num_source)
    target.write_text("línea\n" * num_target, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read({"source": str(source), "target": str(target)})
    shorter, longer = (source, target) if num_source < num_target else (target, source)
    fewest, most = sorted((num_source, num_target))
    expected = f"{shorter} has {fewest} lines and {longer} has {most}: line {fewest + 1} has no translation"
    assert expected in str(error.value)


def test_planted_fault_splitlines_would_misalign_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\u0085half\ntwo\n", encoding="utf-8")
    (tmp_path / "a.es").write_text("uno\ndos\n", encoding="utf-8")
    sides = [(tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("a.en", "a.es")]
    wrong = list(zip(*sides, strict=False))
    right = read({"source": str(tmp_path / "a.en"), "target": str(tmp_path / "a.es")})
    assert right == [("one\u0085half", "uno"), ("two", "dos")] != wrong


# ---------------------------------------------------------------------- translation memories

MEMORY = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en"/><body>
<tu><tuv xml:lang="en-GB"><seg>A <hi>bold</hi> house&amp;garden.</seg></tuv>
    <tuv xml:lang="ES"><seg>Una casa <bpt i="1">&lt;b&gt;</bpt>negrita<ept i="1">&lt;/b&gt;</ept>.</seg></tuv>
    <tuv xml:lang="de"><seg>Ein Haus.</seg></tuv></tu>
<tu><tuv lang="en"><seg>Only
    English.</seg></tuv></tu>
<tu><prop>x</prop><tuv xml:lang="en"><seg>Two.</seg></tuv><tuv xml:lang="es-MX"><seg>Dos.</seg></tuv></tu>
</body></tmx>
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_translation_memory(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "memory.tmx"
    file.write_bytes(MEMORY.replace("UTF-8", encoding.removesuffix("-sig")).encode(encoding))
    assert read(str(file)) == [
        ("A bold house&garden.", "Una casa negrita."),
        ("Only English.", ""),
        ("Two.", "Dos."),
    ]
    assert read(str(file), "de", "EN")[0] == ("Ein Haus.", "A bold house&garden.")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.text("abc<&é ", max_size=9), st.text("xyz>'\"ñ ", max_size=9)), min_size=1))
def test_a_translation_memory_equals_elementtree(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair]
) -> None:
    file = tmp_path_factory.mktemp("memory") / "memory.tmx"
    root = ElementTree.Element("tmx", version="1.4")
    body = ElementTree.SubElement(root, "body")
    for pair in pairs:
        unit = ElementTree.SubElement(body, "tu")
        for language, text in zip(("en", "es"), pair, strict=True):
            variant = ElementTree.SubElement(unit, "tuv", {"xml:lang": language})
            ElementTree.SubElement(variant, "seg").text = text
    ElementTree.ElementTree(root).write(file, encoding="utf-8")
    whole = ElementTree.parse(file).iter("tu")
    expected = [tuple(" ".join((seg.text or "").split()) for seg in unit.iter("seg")) for unit in whole]
    assert read(str(file)) == expected


def test_a_long_translation_memory_does_not_stay_in_memory(tmp_path: Path) -> None:
    unit = "<tu><tuv xml:lang='en'><seg>{0} one</seg></tuv><tuv xml:lang='es'><seg>{0} uno</seg></tuv></tu>"
    text = "".join(unit.format(number) for number in range(5_000))
    (tmp_path / "memory.tmx").write_text(f"<tmx><body>{text}</body></tmx>")

    def peak_bytes(read_all: Callable[[], int]) -> int:
        tracemalloc.start()
        assert read_all() == 5_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    (source,) = expand_parallel(str(tmp_path / "memory.tmx"), "en", "es", "train_files")
    whole = peak_bytes(lambda: len(list(ElementTree.parse(tmp_path / "memory.tmx").iter("tu"))))
    assert peak_bytes(lambda: sum(1 for _ in source.pairs())) < whole / 3


# ---------------------------------------------------------------------- bad input


def refusal(files: object, **fields: str) -> str:
    with pytest.raises(DataError) as error:
        read(files, **fields)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    return str(error.value)


def test_missing_and_misnamed_files(tmp_path: Path) -> None:
    write_tsv(tmp_path / "english", PAIRS)
    assert f"did you mean {tmp_path / 'english.tsv'}?" in refusal(str(tmp_path / "englsh.tsv"))
    assert "train_files.source" in refusal({"source": "nowhere.en", "target": "nowhere.es"})
    assert "is a folder" in refusal(str(tmp_path))
    assert "matches no file" in refusal(str(tmp_path / "*.jsonl"))
    assert "corpus:kjv-rv1909-test" in refusal("corpus:kjv-rv1909-tset")
    assert "names no file" in refusal([])
    assert "names no file" in refusal([""])
    assert "cannot be read" in refusal("x" * 5000)
    (tmp_path / "empty.tsv").touch()
    assert "is empty" in refusal(str(tmp_path / "empty.tsv"))
    (tmp_path / "one_side.txt").write_text("one\n")
    assert "does not hold both sides" in refusal(str(tmp_path / "one_side.txt"))


def test_wrong_keys_of_aligned_files(tmp_path: Path) -> None:
    files = write_lines(tmp_path / "text", PAIRS)
    assert isinstance(files, dict)
    assert "did you mean 'target'?" in refusal({"source": files["source"], "traget": files["target"]})
    assert "names no target file" in refusal({"source": files["source"]})
    assert "2 source files and 1 target files" in refusal(
        {"source": [files["source"], files["target"]], "target": files["target"]}
    )
    table = write_tsv(tmp_path / "table", PAIRS)
    assert "has no sentence in each line" in refusal({"source": table, "target": files["target"]})


@pytest.mark.parametrize("write", [write_tsv, write_jsonl, write_parquet])
def test_a_column_of_another_name(write: Callable[[Path, list[Pair]], object], tmp_path: Path) -> None:
    file = write(tmp_path / "text", PAIRS)
    assert "target_field='es'?" in refusal(file, target="esp")
    assert "set source_field to one of them" in refusal(file, source="source")


def test_a_field_that_is_missing_or_no_text(tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text('{"en": "one", "es": "uno"}\n{"en": "two"}\n')
    assert "line 2 has no field 'es'" in refusal(str(file))
    file.write_text('{"en": "one", "es": 1}\n')
    assert "choose another target_field" in refusal(str(file))
    file.write_text('{"en": "one", "es": "uno"}\nnot json\n')
    assert "line 2 is not JSON" in refusal(str(file))


def test_tabs_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "text.tsv").write_text("en\tes\none\tuno\ntwo\tdos\ttres\n")
    assert "line 3 has 3 columns, the first line 2" in refusal(str(tmp_path / "text.tsv"))


def test_damaged_files(tmp_path: Path) -> None:
    data = gzip.compress("\n".join(f"sentence {number}" for number in range(500)).encode())
    (tmp_path / "a.en.gz").write_bytes(data[: len(data) // 2])
    (tmp_path / "a.es").write_text("\n".join("oración" for _ in range(500)), encoding="utf-8")
    message = refusal({"source": str(tmp_path / "a.en.gz"), "target": str(tmp_path / "a.es")})
    assert "damaged .gz file" in message
    (tmp_path / "b.tmx").write_text(MEMORY[: len(MEMORY) // 2])
    assert "damaged .tmx file" in refusal(str(tmp_path / "b.tmx"))
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no table PAR1")
    assert "damaged .parquet file" in refusal(str(tmp_path / "c.parquet"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(encoding: str, tmp_path: Path) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE tmx [<!ENTITY a "b">]><tmx>&a;</tmx>'
    (tmp_path / "bomb.tmx").write_bytes(text.encode(encoding))
    assert "declares entities" in refusal(str(tmp_path / "bomb.tmx"))


def test_languages_that_a_memory_lacks(tmp_path: Path) -> None:
    (tmp_path / "memory.tmx").write_text(MEMORY, encoding="utf-8")
    assert "has no language 'spa': it has de, en, en-gb, es, es-mx; set target_field" in refusal(
        str(tmp_path / "memory.tmx"), target="spa"
    )
    assert "has no language 'source'" in refusal(str(tmp_path / "memory.tmx"), source="source")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_bytes(b"one\ncaf\xe9\n")
    (tmp_path / "a.es").write_bytes(b"uno\ndos\n")
    files = {"source": str(tmp_path / "a.en"), "target": str(tmp_path / "a.es")}
    assert "a.en: line 2, byte 7 (0xe9) is not UTF-8" in refusal(files)
    assert read(files, invalid_text="replace")[1] == ("caf\ufffd", "dos")
    repairs = TextRepairs()
    list(expand_parallel(files, "en", "es", "train_files")[0].pairs("skip", repairs))
    assert repairs.num_places == 1

"""The audit's parts: what is planted is found, and what is not planted is not."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import newslora
from newslora.auditing.copies import PERMUTATIONS, SHINGLE, _bands, find_copies
from newslora.auditing.judges import folds_possible, judge_by_words
from newslora.auditing.labels import find_doubtful
from newslora.auditing.leakage import effect_on_accuracy, find_leaks, leakage_table
from newslora.auditing.lengths import _summary
from newslora.auditing.lists import write_labels
from newslora.auditing.rows import AuditRows, Split
from newslora.auditing.verdicts import NO_WORDS, Answers, judge_labels
from newslora.cli.app import main
from newslora.data.articles import ArticleSet
from newslora.data.sources import Source
from newslora.data.texts import Quarantine, Texts
from newslora.errors import DataError, SettingsError
from newslora.metrics.single_label import ONE_LABEL

WORDS = [f"word{number}" for number in range(3_000)]


def prose(count: int, words: int = 30, seed: int = 0) -> list[str]:
    """Texts of random words: no two share a three-word sequence but by a rare accident."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size=words).tolist()) for _ in range(count)]


def edited(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = f"other{place}"
    return " ".join(words)


def jaccard(one: str, other: str) -> float:
    """By its definition, with strings."""

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))}

    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def rows_of(*splits: tuple[str, list[str], list[int]]) -> AuditRows:
    parts, start = [], 0
    for name, texts, labels in splits:
        articles = ArticleSet(
            Source(name, "file", name, None), None, name, ("text",), "label", Texts.of(texts),
            np.array(labels), np.arange(1, len(texts) + 1), Quarantine(name, Texts.of([]), {}),
        )  # fmt: skip
        parts.append(Split(name, articles, start, start + len(texts)))
        start += len(texts)
    sizes = [len(texts) for _, texts, _ in splits]
    return AuditRows(
        parts,
        ("World", "Sports"),
        [text for _, texts, _ in splits for text in texts],
        np.array([label for _, _, labels in splits for label in labels], dtype=np.int64),
        np.repeat(np.arange(len(splits)), sizes),
        np.concatenate([np.arange(1, size + 1) for size in sizes]),
    )


def test_no_copies_among_rows_that_have_none() -> None:
    copies = find_copies(prose(500))
    assert copies.exact == []
    assert copies.near == []
    assert len(set(copies.clusters.tolist())) == 500


def test_planted_copies_are_found_and_only_those() -> None:
    texts = prose(300)
    texts[10] = texts[3].upper().replace(" ", ",  ") + "!"  # equal but for case and punctuation
    texts[20] = texts[3]
    near = {(40, 50): 1, (60, 70): 2, (80, 90): 3}  # so many words of thirty changed
    for (place, copy), changes in near.items():
        texts[copy] = edited(texts[place], *range(0, 3 * changes, 3))
    texts[99] = edited(texts[98], *range(0, 30, 3))  # every third word: no shingle is left
    copies = find_copies(texts)
    assert copies.exact == [[3, 10, 20]]
    assert {(pair.first, pair.second) for pair in copies.near} == set(near)
    for pair in copies.near:
        assert pair.similarity == pytest.approx(jaccard(texts[pair.first], texts[pair.second]))
    assert len(set(copies.clusters.tolist())) == 300 - 2 - 3


def test_the_same_shingles_in_another_order_are_near_not_equal() -> None:
    turned = ["one two three one two three", "three one two three one two three one", "one two"]
    copies = find_copies([*prose(3), *turned], 1.0)
    assert copies.exact == []
    assert [(pair.first, pair.second, pair.similarity) for pair in copies.near] == [(3, 4, 1.0)]


def test_copies_are_found_through_html_and_across_scripts() -> None:
    texts = prose(4)
    texts += ["company #39;s &lt;b&gt;profit&lt;/b&gt; rises &amp; falls today", "Company's profit rises & falls today"]
    texts += ["北京今天天气很好我们去公园散步吧", "北京今天天气很好我们去公园散步了"]
    texts += ["!!!", "???", "a", "b"]
    copies = find_copies(texts)
    assert copies.exact == [[4, 5]]
    assert [(pair.first, pair.second) for pair in copies.near] == [(6, 7)]


def test_texts_that_share_only_a_link_are_no_copies() -> None:
    link = '&lt;A HREF="http://www.example.com/quote/full/page?ticker=AB.C target=/stocks/quick/info"&gt;AB.C&lt;/A&gt;'
    first, second = prose(2, words=8)
    assert jaccard(f"{first} {link}", f"{second} {link}") > 0.3
    assert find_copies([f"{first} {link}", f"{second} {link}"], 0.2).near == []


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 14)), min_size=1, max_size=20),
    st.sampled_from([0.3, 0.6, 0.9]),
)
def test_every_reported_pair_is_true_and_clearly_similar_pairs_are_reported(
    edits: list[tuple[int, int]], similarity: float
) -> None:
    texts = prose(20, words=25)
    for source, changes in edits:
        texts.append(edited(texts[source], *range(0, changes)))
    copies = find_copies(texts, similarity)
    reported = {(pair.first, pair.second) for pair in copies.near}
    for pair in copies.near:
        assert pair.similarity == pytest.approx(jaccard(texts[pair.first], texts[pair.second]))
        assert pair.similarity >= similarity
    firsts = {min(group) for group in copies.exact}
    rest = [
        place for place in range(len(texts)) if place in firsts or not any(place in group for group in copies.exact)
    ]
    for one in rest:
        for other in rest:
            if one < other and jaccard(texts[one], texts[other]) >= min(0.95, similarity + 0.15):
                assert (one, other) in reported


@pytest.mark.parametrize("similarity", [0.1, 0.3, 0.6, 0.9, 1.0])
def test_pairs_just_as_similar_as_asked_are_found(similarity: float) -> None:
    bands, length = _bands(similarity)
    assert bands >= 2
    assert bands * length <= PERMUTATIONS
    assert 1 - (1 - similarity**length) ** bands >= 0.97


def test_nearly_all_pairs_on_the_border_are_found() -> None:
    originals = prose(200, words=26)  # 24 shingles; two words changed far apart change 6: 18 of 30 are shared
    texts = originals + [edited(text, 5, 15) for text in originals]
    assert jaccard(texts[0], texts[200]) == pytest.approx(0.6)
    found = {(pair.first, pair.second) for pair in find_copies(texts, 0.6).near}
    assert found <= {(place, place + 200) for place in range(200)}
    assert len(found) >= 185  # 97 % expected, four standard deviations below


def test_a_crowd_of_like_rows_stays_one_cluster_without_all_its_pairs() -> None:
    base = prose(1, words=40)[0]
    texts = [f"{base} number{number}" for number in range(400)]
    copies = find_copies(texts)
    assert len(set(copies.clusters.tolist())) == 1
    assert len(copies.near) <= 400 * 100


def test_leaks_are_rows_of_a_later_split_and_name_their_nearest_copy() -> None:
    train, test = prose(50), prose(20, seed=1)
    test[2] = train[7]
    test[5] = edited(train[9], 0, 1, 2, 3)
    train[30] = edited(train[9], 0, 1, 2)  # a nearer copy of test[5] than train[9]
    test[6] = test[5]  # equal to test[5], so as leaked
    train[41] = train[40]  # copies inside a split are no leak
    rows = rows_of(("train", train, [0] * 50), ("test", test, [0, 0, 1] + [0] * 17))
    leaks = find_leaks(rows, find_copies(rows.texts))
    assert [(leak.row - 50, leak.copy) for leak in leaks] == [(2, 7), (5, 30), (6, 30)]
    assert [leak.equal for leak in leaks] == [True, False, False]
    (table,) = leakage_table(rows, leaks)
    assert table == {
        "split": "test", "repeats": "train", "equal_rows": 1, "near_rows": 2, "with_another_label": 1, "rows": 20,
    }  # fmt: skip


def test_no_leak_where_none_is_planted() -> None:
    rows = rows_of(("train", prose(200), [0] * 200), ("test", prose(100, seed=1), [1] * 100))
    leaks = find_leaks(rows, find_copies(rows.texts))
    assert leaks == []
    assert leakage_table(rows, leaks)[0]["equal_rows"] == 0


def test_each_earlier_split_is_looked_at() -> None:
    shared = prose(3, seed=5)
    rows = rows_of(
        ("train", [*prose(9), shared[0]], [0] * 10),
        ("validation", [*prose(8, seed=1), shared[1], shared[0]], [0] * 10),
        ("test", [*prose(8, seed=2), shared[1], shared[0]], [0] * 10),
    )
    table = leakage_table(rows, find_leaks(rows, find_copies(rows.texts)))
    assert [(one["split"], one["repeats"], one["equal_rows"]) for one in table] == [
        ("validation", "train", 1), ("test", "train", 1), ("test", "validation", 2),
    ]  # fmt: skip


def test_the_effect_of_leaks_on_accuracy() -> None:
    train, test = prose(100), prose(100, seed=1)
    test[:20] = train[:20]
    rows = rows_of(("train", train, [0] * 100), ("test", test, [0] * 100))
    predicted = np.zeros(100, dtype=np.int64)
    predicted[60:] = 1  # right on all 20 leaked rows and on 40 of the 80 clean ones
    leaks = find_leaks(rows, find_copies(rows.texts))
    effect = effect_on_accuracy(rows, leaks, 0, 1, predicted == 0)
    assert (effect["all"]["value"], effect["clean"]["value"], effect["leaked"]["value"]) == (0.6, 0.5, 1.0)
    assert (effect["clean"]["rows"], effect["leaked"]["rows"]) == (80, 20)
    assert effect["rise"]["value"] == pytest.approx(0.1)
    low, high = effect["rise"]["interval"]
    assert 0 < low < 0.1 < high
    assert "no paired comparison" in effect["caveat"]
    clean = effect_on_accuracy(rows, [], 0, 1, predicted == 0)
    assert clean["leaked"]["value"] is None
    assert "rise" not in clean


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_summary_counts_what_the_lists_hold(tmp_path: Path) -> None:
    train, test = prose(12), prose(8, seed=1)
    train[3], train[4] = train[0].upper(), train[0]
    train[6] = edited(train[5], 0, 15)  # 24 of 32 shingles are shared
    train[9] = f"{train[9]} &amp; more &lt;"
    test[0], test[1], test[2] = train[0], edited(train[7], 0), edited(train[8], 0)  # 27 of 29
    labels = {"train": [0, 1] * 6, "test": [1, 1, 0, 0, 1, 0, 1, 0]}
    for name, texts in (("train", train), ("test", test)):
        rows = [f"{text},{'ab'[label]}\n" for text, label in zip(texts, labels[name], strict=True)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(rows))
    result = newslora.audit([tmp_path / "train.csv", tmp_path / "test.csv"], output=tmp_path / "found")
    assert result["duplicates"] == {
        "shingle_words": 3, "similarity": 0.6, "equal_groups": 1, "rows_equal_to_an_earlier": 3, "near_pairs": 3,
        "rows_left_without_copies": 14,
        "between": [
            {"splits": ["train", "train"], "equal_pairs": 2, "near_pairs": 1, "with_other_labels": 2},
            {"splits": ["train", "test"], "equal_pairs": 1, "near_pairs": 2, "with_other_labels": 1},
            {"splits": ["test", "test"], "equal_pairs": 0, "near_pairs": 0, "with_other_labels": 0},
        ],
    }  # fmt: skip
    pairs = read(tmp_path / "found" / "duplicates.csv")
    told = [tuple(line[key] for key in ("row_a", "split_b", "row_b", "kind", "similarity", "labels")) for line in pairs]
    assert told == [
        ("1", "train", "4", "equal", "1.000", "differ"), ("1", "train", "5", "equal", "1.000", "agree"),
        ("1", "test", "1", "equal", "1.000", "differ"), ("8", "test", "2", "near", "0.931", "agree"),
        ("9", "test", "3", "near", "0.931", "agree"), ("6", "train", "7", "near", "0.750", "differ"),
    ]  # fmt: skip
    entities = {one["split"]: (one["rows"], one["of"]) for one in result["damage"] if one["kind"] == "entity"}
    assert entities == {"train": (1, 12), "test": (0, 8)}
    (damage,) = read(tmp_path / "found" / "text-damage.csv")
    assert (damage["row"], damage["count"], damage["found"]) == ("10", "2", "&amp;")
    assert [one["labels"] for one in result["splits"]] == [{"a": 6, "b": 6}, {"a": 4, "b": 4}]
    characters, words = result["splits"][1]["characters"], result["splits"][1]["words"]
    lengths = [len(text) for text in test]
    assert (characters["shortest"], characters["longest"]) == (min(lengths), max(lengths))
    assert characters["mean"] == round(sum(lengths) / 8, 1)
    assert (words["shortest"], words["mean"], words["longest"]) == (30, 30, 30)


def test_lengths_are_summed_up_by_numpys_percentiles() -> None:
    assert _summary([1, 4, 2]) == {
        "shortest": 1, "mean": 2.3, "median": 2, "percentile_95": pytest.approx(3.8), "percentile_99": pytest.approx(3.96),
        "longest": 4,
    }  # fmt: skip


def test_a_runs_own_answers_judge_each_split_and_the_worst_label_of_all_comes_first(tmp_path: Path) -> None:
    labels = [0, 1] * 10
    rows = rows_of(("train", prose(20), labels), ("test", prose(20, seed=1), labels))
    told, sure = np.array(labels), np.array([[0.9, 0.1], [0.1, 0.9]])
    answers = []
    for place, given_probability in ((4, 0.08), (7, 0.05)):  # of World in train, of Sports in test
        probabilities = sure[told]
        probabilities[place] = [given_probability, 1 - given_probability]
        if labels[place]:
            probabilities[place] = probabilities[place][::-1]
        answers.append(Answers(probabilities, probabilities.argmax(1) == told))
    judged, doubts = judge_labels(
        rows, np.arange(40), "words", dict(enumerate(answers)), None, None, None, lambda rows: None
    )
    assert [(doubt.row, doubt.suggested) for doubt in doubts] == [(27, 0), (4, 1)]
    by = "the run's own predictions, of rows it was not trained on"
    for one, split in zip(judged, ("train", "test"), strict=True):
        assert one == {"split": split, "judged_by": by, "its_accuracy": 0.95, "likely_wrong": 1, "rows": 20}
    write_labels(tmp_path / "labels.csv", rows, doubts)
    first, second = read(tmp_path / "labels.csv")
    wanted = {"rank": "1", "split": "test", "row": "8", "given": "Sports", "suggested": "World", "confidence": "0.9500"}
    assert first == wanted | {"given_probability": "0.0500", "text": rows.texts[27], "verdict": ""}
    assert (second["rank"], second["row"], second["given_probability"]) == ("2", "5", "0.0800")


def topical(count: int, seed: int = 0) -> tuple[list[str], np.ndarray]:  # type: ignore[type-arg]
    """Texts of two topics: 6 of their 12 words are their topic's."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    texts = []
    for label in labels:
        own = [f"topic{label}x{number}" for number in generator.integers(0, 60, size=6)]
        texts.append(" ".join(generator.permutation([*own, *generator.choice(WORDS, size=6)]).tolist()))
    return texts, labels


def test_flipped_labels_are_found_and_none_where_none_is_flipped() -> None:
    texts, labels = topical(400)
    clusters = np.arange(400)
    clean = find_doubtful(labels, judge_by_words(texts, labels, clusters, 2))
    assert clean == []
    flipped = np.random.default_rng(1).choice(400, size=20, replace=False)
    wrong = labels.copy()
    wrong[flipped] = 1 - wrong[flipped]
    doubts = find_doubtful(wrong, judge_by_words(texts, wrong, clusters, 2))
    found = {doubt.row for doubt in doubts}
    assert len(found & set(flipped.tolist())) >= 16
    assert len(found - set(flipped.tolist())) <= 1
    assert all(doubt.suggested == labels[doubt.row] for doubt in doubts if doubt.row in set(flipped.tolist()))
    assert all(doubt.confidence > doubt.given_probability for doubt in doubts)
    order = [doubt.given_probability for doubt in doubts]
    assert order == sorted(order)


def test_the_judge_has_not_seen_the_row() -> None:
    texts = prose(200)
    labels = np.random.default_rng(2).integers(2, size=200)  # nothing to learn: only who saw a row knows its label
    probabilities = judge_by_words(texts, labels, np.arange(200), 2)
    assert (probabilities.argmax(1) == labels).mean() < 0.65
    assert probabilities.sum(1) == pytest.approx(1)


def test_a_copy_does_not_vouch_for_its_likes_wrong_label() -> None:
    texts, labels = topical(200)
    texts, labels = texts + texts[:10] * 4, np.concatenate([labels, np.tile(labels[:10], 4)])
    for start in range(0, 240, 1):  # every copy of the first ten rows bears the same wrong label
        if start < 10 or start >= 200:
            labels[start] = 1 - labels[start]
    copies = find_copies(texts)
    apart = find_doubtful(labels, judge_by_words(texts, labels, np.arange(240), 2))
    together = find_doubtful(labels, judge_by_words(texts, labels, copies.clusters, 2))
    planted = {place for place in range(240) if place < 10 or place >= 200}
    assert len({doubt.row for doubt in together} & planted) >= 45
    assert len({doubt.row for doubt in apart} & planted) < len({doubt.row for doubt in together} & planted)


def test_labels_that_do_not_occur_or_occur_once() -> None:
    labels = np.array([0, 0, 2, 2] * 10)
    probabilities = np.eye(4)[labels] * 0.9 + 0.025
    assert find_doubtful(labels, probabilities) == []
    probabilities[3] = [0.96, 0.02, 0.01, 0.01]
    assert [(doubt.row, doubt.suggested) for doubt in find_doubtful(labels, probabilities)] == [(3, 0)]
    assert find_doubtful(np.zeros(5, dtype=np.int64), np.full((5, 2), 0.5)) == []
    assert folds_possible(np.array([0, 0, 1, 1]), np.arange(4)) == 2
    assert folds_possible(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])) == 1


def test_names_of_columns_are_not_taken_for_data_sets() -> None:
    rows = {"text": ["one"], "label": ["World"]}
    for table in (pa.table(rows), rows):
        with pytest.raises(DataError, match=r"A source of rows is the name of a file, .* not (Table|dict)\."):
            newslora.audit(table)  # type: ignore[arg-type]


def test_rows_tell_where_they_come_from() -> None:
    rows = rows_of(("train", ["a", "b"], [0, 1]), ("test", ["c"], [1]))
    assert rows.told(1) == ("train", 2, "Sports")
    assert rows.told(2) == ("test", 1, "Sports")


def test_rows_of_one_label_are_audited_for_all_but_wrong_labels(tmp_path: Path) -> None:
    texts = [*prose(9), "rates &amp; prices"]
    (tmp_path / "one.csv").write_text("text,label\n" + "".join(f"{text},World\n" for text in texts))
    result = newslora.audit(str(tmp_path / "one.csv"))
    (told,) = result["labels"]
    assert (told["judged_by"], told["likely_wrong"], told["reason"]) == (None, 0, ONE_LABEL)
    assert sum(one["rows"] for one in result["damage"] if one["kind"] == "entity") == 1


def test_texts_without_words_are_not_judged_by_them(tmp_path: Path) -> None:
    path = tmp_path / "signs.csv"
    for more, reason in ((0, NO_WORDS), (1, None)):
        texts = [f"{'! ' * number}?" for number in range(1, 13)] + ["two words"] * more
        path.write_text("text,label\n" + "".join(f"{text},{'ab'[at % 2]}\n" for at, text in enumerate(texts)))
        assert newslora.audit(path)["labels"][0].get("reason") == reason


def test_rows_of_several_labels_are_audited_for_all_but_wrong_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, texts: list[str], labels: list[list[str]]) -> str:
        rows = [{"text": text, "labels": each} for text, each in zip(texts, labels, strict=True)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / name)

    train, test = prose(8), prose(8, seed=1)
    kinds: list[list[str]] = [["World"], ["Sports", "World"], [], ["Sports"]]
    test[0], test[1], test[2] = train[0], train[1], f"{test[2]} &amp; more"
    # the files meet the combinations in other orders, so their numbers for them differ
    sources = [
        write("train.jsonl", train, kinds * 2),
        write("test.jsonl", test, [["World"], ["Sports"], *kinds, [], []]),
    ]
    result = newslora.audit(sources, changes={"data.multi_label": True}, output=tmp_path / "found")
    assert [one["labels"] for one in result["splits"]] == [{"Sports": 4, "World": 4}, {"Sports": 3, "World": 3}]
    (leak,) = result["leakage"]
    assert (leak["equal_rows"], leak["with_another_label"]) == (2, 1)
    assert [(one["judged_by"], one["likely_wrong"]) for one in result["labels"]] == [(None, 0), (None, 0)]
    with (tmp_path / "found" / "leakage.csv").open(newline="") as stream:
        told = [(line["label"], line["repeats_label"]) for line in csv.DictReader(stream)]
    assert told == [("World", "World"), ("Sports", "Sports;World")]
    assert (tmp_path / "found" / "labels.csv").read_text().count("\n") == 1
    assert main(["audit", *sources, "--set", "data.multi_label=true"]) == 0
    assert "Labels not judged, for the rows carry several labels each" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SettingsError, match="The judge 'backbone' judges one label a row"):
        newslora.audit(sources, changes={"data.multi_label": True}, judge="backbone")

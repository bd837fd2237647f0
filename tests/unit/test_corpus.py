"""The bundled corpus is what its README says: balanced, split once, no two items alike."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from datasketch import MinHash, MinHashLSH

import newslora

FOLDER = Path(newslora.__file__).parent / "corpus"
SIZES = {"train": 728, "validation": 144, "test": 160}
NEAR = 0.5  # Jaccard similarity of word 3-grams; unrelated stories lie below 0.1


def read(split: str) -> list[dict[str, str]]:
    with (FOLDER / f"{split}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def items() -> list[dict[str, str]]:
    return [item for split in SIZES for item in read(split)]


@pytest.mark.parametrize(("split", "size"), SIZES.items())
def test_splits_are_balanced(split: str, size: int) -> None:
    counts = Counter(item["label"] for item in read(split))
    assert counts == dict.fromkeys(("World", "Sports", "Business", "Sci/Tech"), size // 4)


def test_items_are_a_title_and_one_to_three_sentences(items: list[dict[str, str]]) -> None:
    for item in items:
        assert 3 <= len(item["title"].split()) <= 14, item["title"]
        assert 5 <= len(item["description"].split()) <= 90, item["title"]


def sketch(item: dict[str, str]) -> MinHash:
    words = f"{item['title']} {item['description']}".lower().split()
    found = MinHash(num_perm=64, seed=1)
    found.update_batch([" ".join(words[place : place + 3]).encode() for place in range(len(words) - 2)])
    return found


def test_no_two_items_are_near_duplicates(items: list[dict[str, str]]) -> None:
    index = MinHashLSH(threshold=NEAR, num_perm=64)
    for place, item in enumerate(items):
        found = sketch(item)
        assert not index.query(found), item["title"]
        index.insert(str(place), found)
    # the check sees a planted one: the first item with its last word changed
    planted = {**items[0], "description": items[0]["description"].rpartition(" ")[0] + " otherwise."}
    assert index.query(sketch(planted)) == ["0"]


def test_titles_do_not_follow_a_template(items: list[dict[str, str]]) -> None:
    starts = Counter(" ".join(item["title"].split()[:3]).lower() for item in items)
    assert starts.most_common(1)[0][1] <= 3

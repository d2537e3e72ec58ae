from inandout.report import Row, markdown_table


def row(seed: int, ap: float | None) -> Row:
    metrics = {"precision": 0.5, "recall": 0.25, "oracle_precision": 1.0, "oracle_recall": 0.0}
    return Row("zero", "MemSeg", 80, seed, f"run{seed}", metrics | ({"ap": ap} if ap is not None else {}))


def test_a_cell_is_mean_and_sample_deviation() -> None:
    assert "| 0.700 (0.141) |" in markdown_table([row(0, 0.6), row(1, 0.8)])


def test_one_seed_has_no_spread() -> None:
    line = markdown_table([row(0, 0.6)]).splitlines()[-1]
    assert line.split("|")[5].strip() == "0.600"


def test_a_missing_value_is_not_averaged_away() -> None:
    assert "undefined" in markdown_table([row(0, 0.6), row(1, None)])


def test_lines_stand_in_order_of_appearance() -> None:
    rows = [row(0, 0.6), row(0, 0.6)._replace(source="none", shot="full")]
    assert [line.split("|")[2].strip() for line in markdown_table(rows).splitlines()[2:]] == ["MemSeg", "none"]

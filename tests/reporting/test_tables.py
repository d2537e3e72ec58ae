from inandout.reporting.tables import Row, csv_table, curves, latex_table, markdown_table, pack, unpack


def row(seed: int, ap: float | None) -> Row:
    metrics = {"precision": 0.5, "recall": 0.25, "oracle_precision": 1.0, "oracle_recall": 0.0}
    return Row("zero", "MemSeg", 80, seed, f"run{seed}", metrics | ({"ap": ap} if ap is not None else {}))


def test_a_cell_is_mean_and_sample_standard_deviation() -> None:
    assert "| 0.700 (0.141) |" in markdown_table([row(0, 0.6), row(1, 0.8)])


def test_one_seed_has_no_spread() -> None:
    line = markdown_table([row(0, 0.6)]).splitlines()[-1]
    assert line.split("|")[5].strip() == "0.600"


def test_a_missing_value_makes_the_mean_undefined() -> None:
    assert "undefined" in markdown_table([row(0, 0.6), row(1, None)])


def test_rows_are_in_order_of_appearance() -> None:
    rows = [row(0, 0.6), row(0, 0.6)._replace(source="none", shot="full")]
    assert [line.split("|")[2].strip() for line in markdown_table(rows).splitlines()[2:]] == ["MemSeg", "none"]


def lines_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def test_a_source_with_several_n_aug_gets_an_average_and_the_best_value_is_bold() -> None:
    aps = {80: (0.5, 0.7), 100: (0.4, 0.4)}
    rows = [row(seed, ap)._replace(n_aug=n_aug) for n_aug, two in aps.items() for seed, ap in enumerate(two)]
    rows.append(row(0, 0.1)._replace(source="DDPM", n_aug=100))
    table = lines_of(markdown_table(rows, paper=True))
    assert [line[2] for line in table] == ["80", "100", "average", "100"]
    assert [line[4] for line in table] == ["**0.600 (0.141)**", "0.400 (0.000)", "0.500 (0.071)", "0.100"]
    assert [line[9] for line in table] == ["0.514 (0.026)", "0.388 (0.066)", "0.451 (0.046)", "0.532 (0.028)"]


def test_an_average_states_the_range_of_seeds() -> None:
    rows = [
        row(seed, 0.5)._replace(n_aug=n_aug) for n_aug, seeds in ((80, 4), (100, 1), (120, 2)) for seed in range(seeds)
    ]
    assert [line[3] for line in lines_of(markdown_table(rows))] == ["4", "1", "2", "1-4"]
    assert lines_of(markdown_table([row(0, 0.5), row(0, 0.5)._replace(n_aug=100)]))[-1][3] == "1"


def test_the_legend_includes_sources_missing_from_the_first_shot() -> None:
    rows = [row(0, 0.5), row(0, 0.4)._replace(shot="full"), row(0, 0.3)._replace(shot="full", source="none", n_aug=0)]
    (legend,) = curves(rows).legends
    assert [text.get_text() for text in legend.get_texts()] == ["MemSeg", "none"]


def test_rows_are_written_as_latex_csv_and_json() -> None:
    rows = [row(0, 0.5)._replace(source="In&Out", n_aug=100), row(0, 0.4)]
    assert r"In\&Out & 100 & 1 & \textbf{0.500}" in latex_table(rows)
    first = csv_table(rows).splitlines()
    assert dict(zip(first[0].split(","), first[1].split(","), strict=True))["paper_ap_std"] == "0.059"
    assert unpack(pack(rows)) == rows


def test_names_of_sources_are_text_in_latex() -> None:
    name = r"my_gan 50% #2 {a}$\~^"
    table = latex_table([row(0, 0.5)._replace(source=name), row(0, 0.4)])
    written = r"my\_gan 50\% \#2 \{a\}\$\textbackslash{}\textasciitilde{}\textasciicircum{}"
    assert f"zero & {written} & 80 & 1 & " + r"\textbf{0.500}" in table

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

from inandout.errors import InputError
from inandout.review.decisions import ConflictError, DecisionLog, merge_logs

A, B = "a" * 32, "b" * 32


def log_in(folder: Path) -> DecisionLog:
    return DecisionLog(folder / "pool" / "decisions.jsonl")


def test_a_decision_is_a_line_with_reviewer_and_time_and_can_be_read(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    decision = log.decide(A, "reject", "smeared", "Anna", seen=0)
    (line,) = log.path.read_text().splitlines()
    assert {"image": A, "decision": "reject", "reason": "smeared", "reviewer": "Anna"}.items() <= json.loads(
        line
    ).items()
    assert decision.when.utcoffset() is not None, "the time has a time zone"
    assert log_in(tmp_path).read() == [decision]


def test_a_log_with_the_old_key_verdict_is_read(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    made = log.decide(A, "reject", "smeared", "Anna", seen=0)
    log.path.write_text(log.path.read_text().replace('"decision"', '"verdict"'))
    assert log_in(tmp_path).read() == [made]


def test_the_file_is_append_only(tmp_path: Path) -> None:
    log, before = log_in(tmp_path), b""
    for number in range(5):
        log.decide(A, "keep" if number % 2 else "reject", "", "Anna", seen=number)
        now = log.path.read_bytes()
        assert now.startswith(before)
        assert len(now) > len(before)
        before = now


@pytest.mark.parametrize("incomplete", [b'{"image": "aaaa', b"\xff\xfe", b'{"image":"' + A.encode() + b'"}'])
def test_an_incomplete_last_line_is_ignored_and_overwritten(tmp_path: Path, incomplete: bytes) -> None:
    first = log_in(tmp_path).decide(A, "keep", "", "Anna", seen=0)
    with log_in(tmp_path).path.open("ab") as file:
        file.write(incomplete)
    again = log_in(tmp_path)
    assert again.read() == [first]
    second = again.decide(B, "keep", "", "Anna", seen=0)
    assert log_in(tmp_path).read() == [first, second]


def test_an_invalid_line_is_an_input_error(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.decide(A, "keep", "", "Anna", seen=0)
    log.path.write_bytes(b"nonsense\n" + log.path.read_bytes())
    with pytest.raises(InputError, match="no decision"):
        log_in(tmp_path).read()


def test_an_outdated_tab_does_not_overwrite_another(tmp_path: Path) -> None:
    tab, other = log_in(tmp_path), log_in(tmp_path)
    tab.decide(A, "keep", "", "Anna", seen=0)
    with pytest.raises(ConflictError):
        other.decide(A, "reject", "", "Anna", seen=0)
    other.decide(A, "reject", "", "Anna", seen=1)
    other.decide(A, "keep", "", "Ben", seen=0)
    assert [(decision.reviewer, decision.decision) for decision in tab.read()] == [
        ("Anna", "keep"),
        ("Anna", "reject"),
        ("Ben", "keep"),
    ]


def test_undo_goes_back_step_by_step_after_a_restart(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    log.decide(A, "keep", "good", "Anna", seen=0)
    log.decide(A, "reject", "", "Anna", seen=1)
    log.decide(B, "keep", "", "Ben", seen=0)
    first = log_in(tmp_path).undo("Anna")
    assert first is not None
    assert (first.image, first.decision, first.reason) == (A, "keep", "good")
    second = log_in(tmp_path).undo("Anna")
    assert second is not None
    assert (second.image, second.decision) == (A, "")
    assert log_in(tmp_path).undo("Anna") is None
    assert len(log.read()) == 5, "nothing is removed"


def test_sixteen_threads_and_three_processes_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from inandout.review.decisions import DecisionLog\n"
        "log = DecisionLog(Path(sys.argv[1]) / 'pool' / 'decisions.jsonl')\n"
        "for n in range(20): log.decide(f'{n:032x}', 'keep', '', sys.argv[2], 0)"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"process {n}"]) for n in range(3)]
    log = log_in(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: log.decide(f"{n:032x}", "keep", "", f"thread {n % 16}", 0), range(64)))
    assert [other.wait(60) for other in others] == [0, 0, 0]
    decisions = log_in(tmp_path).read()
    assert len(decisions) == len(set(decisions)) == 64 + 60
    assert log.read() == decisions


@pytest.mark.parametrize(
    "text",
    ["\"quotes' `", "<script>alert(1)</script>", "two\nlines\r\n\u2028\u2029", "\x00\x1b", "😀" * 300, "x" * 300],
)
def test_unusual_texts_are_preserved(tmp_path: Path, text: str) -> None:
    log_in(tmp_path).decide(A, "reject", text, f"n{text[:50]}", seen=0)
    (decision,) = log_in(tmp_path).read()
    assert (decision.reason, decision.reviewer) == (text.strip(), f"n{text[:50]}".strip())


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "x" * 301}, {"reviewer": "  "}, {"reviewer": "x" * 301}, {"decision": "maybe"},
        {"image": "../../etc/passwd"},
    ],
)  # fmt: skip
def test_an_invalid_decision_is_refused_and_not_written(tmp_path: Path, changes: dict[str, str]) -> None:
    log = log_in(tmp_path)
    with pytest.raises(ValidationError):
        log.decide(**{"image": A, "decision": "keep", "reason": "", "reviewer": "Anna", "seen": 0} | changes)  # type: ignore[arg-type]
    assert log.read() == []


def test_a_full_disk_is_an_input_error_and_keeps_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_in(tmp_path)
    log.decide(A, "keep", "", "Anna", seen=0)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(InputError, match=r"not saved.*No space left"):
            log.decide(B, "keep", "", "Anna", seen=0)
    log.decide(B, "reject", "", "Anna", seen=0)
    assert [decision.decision for decision in log_in(tmp_path).read()] == ["keep", "reject"]


def test_logs_of_two_machines_are_merged_without_duplicates(tmp_path: Path) -> None:
    one, two = log_in(tmp_path / "1"), log_in(tmp_path / "2")
    shared = one.decide(A, "keep", "", "Anna", seen=0)
    more = one.decide(B, "keep", "", "Anna", seen=0)
    other = two.decide(A, "reject", "", "Ben", seen=0)
    assert merge_logs([[shared], [other], [shared, more]]) == [shared, more, other]


@pytest.mark.parametrize("loss", ["removed", "emptied", "halved", "replaced", "zeros"])
@pytest.mark.parametrize("reads", [True, False])
def test_a_file_that_lost_decisions_is_written_again(tmp_path: Path, loss: str, reads: bool) -> None:
    log = log_in(tmp_path)
    made = [log.decide(A, "keep", "", "Anna", seen=0), log.decide(B, "reject", "blur", "Ben", seen=0)]
    content = log.path.read_bytes()
    other = log_in(tmp_path / "other").decide(B, "unsure", "", "Carl", seen=0)
    if loss == "removed":
        log.path.unlink()
    elif loss == "replaced":
        log.path.write_bytes(log_in(tmp_path / "other").path.read_bytes())
        made.append(other)
    else:
        log.path.write_bytes({"emptied": b"", "halved": content[: len(content) // 3], "zeros": b"\0" * 50}[loss])
    if reads:
        assert log.read() == made
    made.append(log.decide(A, "unsure", "", "Ben", seen=0))
    assert log_in(tmp_path).read() == made
    assert b"\0" not in log.path.read_bytes()


def test_zeros_and_empty_lines_of_a_power_cut_are_ignored(tmp_path: Path) -> None:
    first = log_in(tmp_path).decide(A, "keep", "", "Anna", seen=0)
    with log_in(tmp_path).path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n\n")
    again = log_in(tmp_path)
    assert again.read() == [first]
    second = again.decide(B, "keep", "", "Anna", seen=0)
    assert log_in(tmp_path).read() == [first, second]


def test_no_acknowledged_decision_is_lost_when_its_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom inandout.review.decisions import DecisionLog\n"
        "log, who = DecisionLog(Path(sys.argv[1])), sys.argv[2]\n"
        "for number in range(10_000):\n"
        f"    log.decide({A!r}, 'keep', str(number), who, seen=number)\n"
        "    print(number, flush=True)\n"
    )
    path, acknowledged = tmp_path / "decisions.jsonl", list[tuple[str, str]]()
    for attempt in range(3):
        command = [sys.executable, "-c", code, str(path), f"reviewer {attempt}"]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        acknowledged += [(f"reviewer {attempt}", writer.stdout.readline().strip()) for _ in range(5 + 17 * attempt)]
        writer.kill()
        acknowledged += [(f"reviewer {attempt}", line.strip()) for line in writer.stdout if line.endswith("\n")]
        writer.wait()
        writer.stdout.close()
    assert len(acknowledged) >= 66
    assert set(acknowledged) <= {(made.reviewer, made.reason) for made in DecisionLog(path).read()}

import pytest

from treadle.cli.chat import Screen, parse_answer, shorten, text_of


@pytest.mark.parametrize(
    ("line", "answer"),
    [("yes", "yes"), ("true", True), ("5", 5), ('{"a": 1}', {"a": 1}), ('"5"', "5"), ("", "")],
)
def test_answers_are_json_where_they_can_be(line, answer):
    assert parse_answer(line) == answer


def test_the_text_of_a_message_is_a_string_or_in_blocks():
    assert text_of("a") == "a"
    assert text_of([{"type": "text", "text": "a"}, "b", {"type": "image"}]) == "ab"
    assert text_of(None) == ""


def test_long_results_are_cut():
    assert shorten("x" * 600) == "x" * 500 + " ..."
    assert shorten("short") == "short"


def test_a_conversation_on_the_screen(capsys):
    screen = Screen()
    for text in ("Let me ", "see."):
        screen.message({"type": "AIMessageChunk", "id": "1", "content": text})
    for args in ('{"id"', ": 1}"):
        call = {"name": "look" if args[0] == "{" else None, "args": args, "index": 0}
        screen.message(
            {"type": "AIMessageChunk", "id": "1", "content": "", "tool_call_chunks": [call]}
        )
    screen.message({"type": "tool", "id": "2", "content": "found it"})
    screen.message({"type": "human", "id": "3", "content": "not shown"})
    call = {"name": "look", "args": {"id": 2}, "id": "c"}
    screen.message({"type": "ai", "id": "4", "content": "Again.", "tool_calls": [call]})
    screen.error({"error": "ValueError", "message": "boom"})
    assert capsys.readouterr().out.splitlines() == [
        "agent> Let me see.",
        '  look {"id": 1}',
        "  found it",
        "agent> Again.",
        '  look {"id": 2}',
        "error> ValueError: boom",
    ]

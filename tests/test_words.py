"""The pages say things as most people would: words that this project fell into are named, with what to write instead.

Vale does this in general; the package that PyPI has for it downloads a program from elsewhere when it is first run.
"""

import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

INSTEAD = {
    r"\b(goes|going|go) on\b": "continue",
    r"\banew\b": "again, or re- (rewrite, restart)",
    r"\bsome \d": "about",
    r"\blikewise\b": "too, the same",
    r"\blaid over\b": "applied on top of, overrides",
    r"\bat hand\b": "available",
    r"\bonce more\b": "again",
    r"\bof one's own\b": "of your own",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bthat there is not\b": "that does not exist",
    r"\b(thereof|whereof|upon|whilst|amongst)\b": "of it, on, while, among",
    r"\b(simply|obviously|of course|just works)\b": "nothing",
    r"\b(utilize|leverage|seamless(ly)?|blazing(ly)?|cutting-edge|state-of-the-art)\b": "the plain word",
}
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def found(text: str) -> list[str]:
    """What a page should say otherwise, with its line; code is left out."""
    prose = _CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
    return [
        f"line {prose[: match.start()].count(chr(10)) + 1}: {match[0]!r}; instead: {instead}"
        for pattern, instead in INSTEAD.items()
        for match in re.finditer(pattern, prose, re.IGNORECASE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_page_uses_plain_words(page: Path) -> None:
    assert found(page.read_text(encoding="utf-8")) == []


def test_words_are_found_in_prose_with_their_line_and_not_in_code() -> None:
    assert found("A fit\ngoes on.\n") == ["line 2: 'goes on'; instead: continue"]
    assert found("```\ngoes on\n```\n`anew`\n") == []
    assert found("```\na\n```\nsome 7 %\n") == ["line 4: 'some 7'; instead: about"]

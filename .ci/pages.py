"""The pages of the documentation: their blocks, and checks that run nothing.

The marks of blocks are described in `readme.py`.
"""

import dataclasses
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARK = re.compile(r"^<!-- ci: (.+?) -->$")
SHELL = ("sh", "bash", "shell", "console")


@dataclasses.dataclass
class Block:
    """A fenced block, or a mark without a block."""

    file: str
    line: int
    mark: str
    language: str
    text: str

    @property
    def place(self):
        return f"{self.file}:{self.line}"


# Directories that are not part of the repository, such as build output and virtual environments.
IGNORED = {"target", "venv", "node_modules", "__pycache__", "all-MiniLM-L6-v2", "clip-vit-base-patch32"}
# A separate test runs the commands of the guide for plugin authors.
TESTED_ELSEWHERE = {"plugin-sdk/README.md"}


def pages():
    """Return all pages, as paths relative to the repository."""
    found = []
    for directory, names, files in os.walk(ROOT):
        names[:] = sorted(name for name in names if name not in IGNORED and not name.startswith("."))
        found += [pathlib.Path(directory, file) for file in sorted(files) if file.endswith(".md")]
    return [str(page.relative_to(ROOT)) for page in found]


def documents():
    """Return the pages whose commands are run here."""
    return [page for page in pages() if page not in TESTED_ELSEWHERE]


def blocks(file):
    """Return the blocks of a page, in order."""
    found, mark, fence = [], "", None
    for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
        if fence is not None:
            if line == "```":
                found.append(fence)
                fence = None
            else:
                fence.text += line + "\n"
        elif line.startswith("```"):
            fence = Block(file, number, mark, line[3:].strip(), "")
            mark = ""
        elif match := MARK.match(line):
            mark = match[1]
            if re.split("[ ,]", mark)[0] == "server":
                found.append(Block(file, number, mark, "", ""))
                mark = ""
        elif line:
            if mark:
                sys.exit(f"{file}:{number}: expected a block after the mark `ci: {mark}`")
    return found


def block(name):
    found = [block for file in documents() for block in blocks(file) if block.mark == name]
    if len(found) != 1:
        sys.exit(f"expected one block marked `ci: {name}`, got {len(found)}: {[block.place for block in found]}")
    return found[0].text


KNOWN_MARKS = re.compile(
    r"(serve|run)(, online)?|request|answer|config|test|not run: .{10,}|excerpt: (?P<excerpt>\S+)|"
    r"server( [^\s,]+)?(, online)?|install (wheel|deb|container)"
)


def unmarked_blocks():
    """Find shell blocks without a mark, unknown marks, and excerpts that are not in their file."""
    for file in documents():
        for block in blocks(file):
            mark = KNOWN_MARKS.fullmatch(block.mark)
            if block.language in SHELL and not block.mark:
                yield f"{block.place}: missing mark for a shell block, such as `<!-- ci: request -->`"
            elif block.mark and not mark:
                yield f"{block.place}: unknown mark `ci: {block.mark}`"
            elif mark and mark["excerpt"] and block.text not in (ROOT / mark["excerpt"]).read_text():
                yield f"{block.place}: the block is not an excerpt of {mark['excerpt']}"


def prose(file):
    """Return the lines of a page outside of fenced blocks, with their numbers."""
    fenced = False
    for number, line in enumerate((ROOT / file).read_text().splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(file):
    """Return the anchors that GitHub generates for the headings of a page."""
    found = set()
    for _, line in prose(file):
        if heading := re.match(r"#{1,6} +(.+)", line):
            text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
            repeated = next(count for count in range(100) if f"{slug}-{count}".removesuffix("-0") not in found)
            found.add(f"{slug}-{repeated}".removesuffix("-0"))
    return found


def broken_links():
    """Find links to files and headings of the repository that do not exist."""
    for file in pages():
        for number, line in prose(file):
            for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
                if re.match(r"[a-z]+:", link):
                    continue
                path, _, anchor = link.partition("#")
                target = (ROOT / file).parent / path if path else ROOT / file
                if not target.exists():
                    yield f"{file}:{number}: broken link `{link}`: no such file"
                elif anchor and anchor not in anchors(os.path.relpath(target, ROOT)):
                    yield f"{file}:{number}: broken link `{link}`: no such heading"


TOP_LEVEL = r"(?:\.ci|config|plugin-sdk|plugins|server|tests)/[\w./-]*"


def missing_files_and_names():
    """Find paths in pages that do not exist, and names that are not in the file that a page names.

    Paths are checked if they are written as code, relative to the root of the repository or the directory of the page. Names
    are checked if their file follows, as in "`Type::function` in `server/src/file.rs`", also across a line break.
    """
    for file in pages():
        if file.endswith("CHANGELOG.md"):
            continue
        text = "\n".join(line for _, line in prose(file))
        for path in re.findall(rf"`({TOP_LEVEL})`", text):
            ignored = IGNORED & set(path.split("/"))
            if not ignored and not (ROOT / path).exists() and not ((ROOT / file).parent / path).exists():
                yield f"{file}: no such file: `{path}`"
        for name, path in re.findall(rf"`([\w:]+)`\s+in\s+`({TOP_LEVEL}\.\w+)`", text):
            last = name.split("::")[-1]
            if (ROOT / path).exists() and not re.search(rf"\b{last}\b", (ROOT / path).read_text()):
                yield f"{file}: `{name}` is not in `{path}`"
    for file in sorted((ROOT / "config").glob("*.toml")):
        for path in re.findall(r"[\w./-]+\.md\b", file.read_text()):
            if not (ROOT / path).exists():
                yield f"config/{file.name}: no such file: {path}"


README_LINES = 200
# Pages that do not start with questions: the front page, the changelog, and notes about data.
WITHOUT_QUESTIONS = re.compile(r"README\.md|(.*/)?CHANGELOG\.md|config/\w+/README\.md|tests/.*")


def malformed_pages():
    """Find pages that do not start with the questions that they answer, and a README that is too long."""
    for file in pages():
        lines = (ROOT / file).read_text().splitlines()
        if file == "README.md" and len(lines) > README_LINES:
            yield f"{file}: {len(lines)} lines, expected at most {README_LINES}: move details to other pages"
        if not WITHOUT_QUESTIONS.fullmatch(file):
            questions = [line for line in lines[:20] if line.endswith("?")]
            if "This page answers:" not in lines[:10] or len(questions) < 2:
                yield f"{file}: expected the line `This page answers:` and a list of questions at the top"


def check():
    """Exit with an error if a page violates a rule."""
    problems = [*unmarked_blocks(), *broken_links(), *missing_files_and_names(), *malformed_pages()]
    if problems:
        sys.exit("\n".join(problems))
    count = sum(block.language in SHELL for file in documents() for block in blocks(file))
    print(f"{len(pages())} pages, {count} shell blocks: no problems found")

#!/usr/bin/env python3
"""Style as a test: include rules, size budget, sources in the build, banned calls, fuzz targets.

Usage: tidy.py ROOT. Prints one line per violation and exits 1 if there is any. The rules are those
of docs/ARCHITECTURE.md and CONTRIBUTING.md; change both together.
"""
import re
import subprocess
import sys
from pathlib import Path

LIBRARIES = ("kernels", "runtime", "statestore", "service", "clients/cpp")
SOURCE_FOLDERS = ("kernels", "runtime", "statestore", "service", "clients", "tests")
SUFFIXES = (".h", ".cc", ".cu", ".inc")

# Project folders that the files of a folder may include.
MAY_INCLUDE = {
    "kernels": ("kernels", "statestore/base"),
    "runtime": ("runtime", "kernels", "statestore/base"),
    "statestore": ("statestore",),
    "service": ("service", "runtime", "kernels", "statestore", "anabranch", "google"),
    "clients": ("clients", "anabranch", "google", "statestore/base"),
}
# Outside headers and where they may appear: (pattern of the include, allowed path pattern, name).
ONLY_IN = (
    (r"^(grpc|grpcpp)/", r"^(service|clients|tests)/", "gRPC"),
    (r"^(anabranch/v1|google/rpc)/", r"^(service|clients|tests)/", "generated protos"),
    (r"^rocksdb/", r"^(statestore/.*\.cc|tests/.*)$", "RocksDB"),
    (r"^sqlite3", r"^statestore/sqlite\.cc$", "SQLite"),
    (r"^(ATen|torch|c10)/", r"^(runtime|tests)/", "LibTorch"),
    (r"^(cuda|cublas|cudnn)", r"^(kernels|runtime|tests)/", "CUDA"),
)
BANNED = (
    (r"\bassert\(", "assert: return a status for bad data, or check an invariant with a status"),
    (r"\bstd::(cout|cerr)\b|\b(printf|fprintf|puts)\(", "libraries do not print"),
    (r"\b(std::)?(exit|abort|_exit|quick_exit)\(", "libraries do not end the process"),
)
# Parsers of bytes from outside; each has a fuzz target of the same name.
FUZZED = ("safetensors", "model_config", "tokenizer", "tokenizer_config", "state_codec", "state_header",
          "record_codec", "key_schema", "bundle_reader")

LIMITS = {"file": 500, "kernel": 600, "test": 800, "header": 200, "function": 70,
          "kernel_function": 150, "columns": 100}


def source_files(root):
    for folder in SOURCE_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root).as_posix()
            if path.suffix in SUFFIXES and "/node_modules/" not in relative:
                yield relative, path.read_text(encoding="utf-8")


def check_includes(name, text):
    folder = name.split("/")[0]
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
        if not match:
            continue
        header = match.group(1)
        top = header.split("/")[0]
        for pattern, allowed, what in ONLY_IN:
            if re.match(pattern, header) and not re.match(allowed, name):
                yield f"{name}:{number}: {what} header {header} does not belong here"
        project_header = top in MAY_INCLUDE or top == "tests"
        if project_header and folder in MAY_INCLUDE:
            if not any(header.startswith(p + "/") for p in MAY_INCLUDE[folder]):
                yield f"{name}:{number}: {folder}/ may not include {header}"


def check_own_header_first(name, text):
    """foo.cc includes foo.h first, which proves that the header compiles alone."""
    if not name.endswith(".cc") or name.startswith("tests/"):
        return
    own = name[:-3] + ".h"
    includes = re.findall(r'^\s*#\s*include\s+["<]([^">]+)[">]', text, re.M)
    if own in includes and includes[0] != own and "HWY_TARGET_INCLUDE" not in text:
        yield f"{name}: include {own} first"


def functions(text):
    """(first line, length) of function bodies, by Google-style indentation: a body opens with a line
    that ends in '{' at column 0 or 2 and closes with '}' at the same column."""
    lines = text.splitlines()
    start = {0: None, 2: None}
    for number, line in enumerate(lines, 1):
        indent = len(line) - len(line.lstrip(" "))
        if indent not in start or not line.strip():
            continue
        body = line.strip()
        if body.startswith("}") and start[indent] is not None:
            yield start[indent], number - start[indent] + 1
            start[indent] = None
        opens = body.endswith("{") and ("(" in body or indent == 0)
        if opens and not re.match(r"(namespace|class|struct|enum|union|extern|template <.*> (struct|class))\b", body) \
                and not re.search(r"=\s*\{$|\]\s*=\s*\{$", body):
            start[indent] = number


def check_budget(name, text):
    lines = text.splitlines()
    test = name.startswith("tests/")
    kernel = name.startswith("kernels/") and not name.endswith(".h")
    limit = LIMITS["test" if test else "kernel" if kernel else "file"]
    if len(lines) > limit:
        yield f"{name}: {len(lines)} lines, at most {limit}"
    if name.endswith(".h") and not test:
        if len(lines) > LIMITS["header"]:
            yield f"{name}: header of {len(lines)} lines, at most {LIMITS['header']}"
        comments = sum(1 for l in lines if l.strip().startswith(("//", "*", "/*")) or " // " in l)
        code = sum(1 for l in lines if l.strip() and not l.strip().startswith(("//", "#", "}")))
        if comments < 0.2 * (comments + code):
            yield f"{name}: {comments} comment lines to {code} of code; at least 20 % in a header"
    for number, line in enumerate(lines, 1):
        if len(line) > LIMITS["columns"]:
            yield f"{name}:{number}: {len(line)} columns, at most {LIMITS['columns']}"
    limit = LIMITS["kernel_function" if kernel else "function"]
    if not test:
        for first, length in functions(text):
            if length > limit:
                yield f"{name}:{first}: function of {length} lines, at most {limit}"


def strip_comments_and_strings(text):
    text = re.sub(r'"(\\.|[^"\\\n])*"', '""', text)
    return re.sub(r"//[^\n]*", "", text)


def check_banned(name, text):
    if not name.startswith(LIBRARIES) or name.endswith(("main.cc", "_command.cc", "_commands.cc")):
        return
    for number, line in enumerate(strip_comments_and_strings(text).splitlines(), 1):
        for pattern, why in BANNED:
            if re.search(pattern, line) and "static_assert" not in line:
                yield f"{name}:{number}: {why}"


def check_in_build(root, names):
    lists = "\n".join(p.read_text() for p in root.rglob("CMakeLists.txt") if "build" not in p.parts)
    for name in names:
        if name.endswith((".cc", ".cu")) and Path(name).name not in lists:
            yield f"{name}: named in no CMakeLists.txt"


def check_headers_used(files):
    included = {h for _, text in files for h in re.findall(r'#\s*include\s+"([^"]+)"', text)}
    for name, _ in files:
        if name.endswith(".h") and name not in included:
            yield f"{name}: no file includes it"


def check_fuzz_targets(root, names):
    stems = {Path(n).stem for n in names}
    for parser in FUZZED:
        if parser in stems and not (root / f"tests/fuzz/{parser}_fuzz.cc").exists():
            yield f"tests/fuzz/{parser}_fuzz.cc: missing"


def check_format(root, names):
    tool = "clang-format"
    try:
        run = subprocess.run([tool, "--dry-run", "--Werror", *names], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        print("tidy: clang-format is not installed; formatting was not checked", file=sys.stderr)
        return
    for line in sorted(set(re.findall(r"^([^:\s]+):\d+:\d+: error", run.stderr, re.M))):
        yield f"{line}: not formatted (clang-format -i)"


def check_file(name, text):
    for check in (check_includes, check_own_header_first, check_budget, check_banned):
        yield from check(name, text)


def main():
    root = Path(sys.argv[1]).resolve()
    files = list(source_files(root))
    if len(files) < 20:
        print(f"tidy: only {len(files)} sources under {root}; wrong folder?")
        return 1
    names = [name for name, _ in files]
    violations = [v for name, text in files for v in check_file(name, text)]
    violations += [*check_headers_used(files), *check_in_build(root, names), *check_fuzz_targets(root, names),
                   *check_format(root, names)]
    for violation in violations:
        print(violation)
    print(f"tidy: {len(files)} files, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())

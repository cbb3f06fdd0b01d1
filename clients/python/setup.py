"""Generates anabranch.v1 from ../../proto before the package is built."""
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"


def generate() -> None:
    from grpc_tools import protoc  # in build-system.requires

    if not PROTO.is_dir():
        raise SystemExit(f"{PROTO} is missing: build the client inside a checkout of Anabranch")
    files = sorted(str(p.relative_to(PROTO)) for p in (PROTO / "anabranch/v1").glob("*.proto"))
    out = HERE / "src"
    (out / "anabranch/v1").mkdir(exist_ok=True)
    (out / "anabranch/v1/__init__.py").write_text('"""Generated from proto/anabranch/v1."""\n')
    status = protoc.main(["protoc", f"--proto_path={PROTO}",
                          f"--proto_path={Path(protoc.__file__).parent / '_proto'}",
                          f"--python_out={out}", f"--pyi_out={out}", *files])
    if status != 0:
        raise SystemExit("protoc failed")


generate()  # before setup(), so that package discovery sees the generated package
setup()

"""Hand-written YAML files, read strictly: UTF-8, one mapping, every key a text and there once."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from obsdiff.errors import SpecError


class Strict(yaml.SafeLoader):
    """YAML's safe subset without the readings that lose what was written."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise problem(
                    f"the key {key.value if isinstance(key.value, str) else '[…]'} is not text; put it in quotes", key
                )
            if key.value in seen:
                raise problem(f"the key {key.value!r} is there twice; keep one", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def problem(what: str, node: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark)


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML file.

    Raises:
        SpecError: it cannot be read, is no YAML or not UTF-8, holds something other than a mapping, or a key twice;
            the message is one line and names file, line and reason.
    """
    try:
        record = yaml.load(path.read_text(encoding="utf-8-sig"), Strict)
        json.dumps(record, default=str)  # an anchor within itself
    except UnicodeDecodeError:
        raise SpecError(f"{path}: not UTF-8; save it in that encoding") from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not YAML ({said(error)})") from None
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path}: not YAML ({str(error) or 'nested too deeply'})") from None
    if not isinstance(record, dict):
        kind = "nothing" if record is None else "a list" if isinstance(record, list) else "a single value"
        raise SpecError(f"{path}: holds {kind}; write a mapping of keys to values")
    return record


def said(error: yaml.YAMLError) -> str:
    """A YAML error in one line."""
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"line {mark.line + 1}: {what}" if mark else str(what)


def home(path: str) -> str:
    """A path that begins with ~/ in the user's home; others as they are, so `./~` is a folder of that name."""
    return str(Path(path).expanduser()) if path.startswith("~/") else path

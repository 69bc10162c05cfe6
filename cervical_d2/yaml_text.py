"""Parses YAML from untrusted sources safely, with a limit on how far aliases expand."""

from typing import Any

import yaml

LARGEST = 100_000  # values after aliases are expanded: a few lines of nested aliases expand to billions


def parse_yaml(text: str) -> Any:
    """The content of `text`.

    Raises:
        ValueError: it is not YAML, is nested too deeply, or its aliases expand to more than `LARGEST` values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > LARGEST:
            raise ValueError(f"its aliases expand to more than {LARGEST} values; write the values out")
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(str(error)) from error  # PyYAML's constructors fail on unexpected values
    finally:
        loader.dispose()


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """The number of values that `node` expands to; `counted`: the numbers of nodes seen before, by their ids."""
    if id(node) not in counted:
        counted[id(node)] = LARGEST + 1  # stays for a node that contains itself
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        counted[id(node)] = 1 + sum(_values(child, counted) for child in flat)
    return counted[id(node)]
